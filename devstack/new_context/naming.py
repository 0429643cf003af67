"""Rules for the name of a context, which becomes a Python module, a Protobuf package and a part of scopes."""

import builtins
import re
from keyword import iskeyword
from pathlib import Path

from devstack.new_context import files
from runtime.process.start_error import StartError

VALID = re.compile(r"[a-z][a-z0-9]*(_[a-z][a-z0-9]*)*")
MAX_LENGTH = 20
"""In characters, so that every line of every template stays within the line limit."""
PACKAGES = frozenset({"buf", "diptych", "google"})
"""First parts of other Protobuf packages. Inside a context of the same name, Protobuf would resolve them to
the context's own package."""
OTHER_LANGUAGES = re.compile(
    r"abstract|boolean|byte|case|catch|char|const|default|do|double|enum|extends|final|goto|implements|instanceof"
    r"|interface|internal|long|native|new|package|private|protected|public|short|static|strictfp|super|switch"
    r"|synchronized|this|throw|throws|transient|void|volatile"
)
"""Names that no Java package can have, and `internal`, which Go lets nobody import."""


def check(name: str, root: Path) -> None:
    """Check that a context can have this name.

    Raises:
        StartError: the name is not a lower-case identifier, is reserved, or is taken.
    """
    if not VALID.fullmatch(name) or len(name) > MAX_LENGTH:
        expected = f"a lower-case identifier of at most {MAX_LENGTH} characters, like loyalty or gift_cards"
        raise StartError(f"NAME: {name!r} is not {expected}")
    if iskeyword(name) or hasattr(builtins, name) or name in PACKAGES or OTHER_LANGUAGES.fullmatch(name):
        raise StartError(f"NAME: {name} is reserved by Python, Protobuf, Java or Go")
    folders = [f"{parent}/{name}" for parent in ("protos/diptych", "generated/diptych")]
    folders.append(f"command_server/contexts/{name}")
    for path in (*folders, *files.list_paths(name)):
        if (root / path).exists():
            raise StartError(f"NAME: {name} is taken: {path} exists")
