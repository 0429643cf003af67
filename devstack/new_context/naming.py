"""What a context may be called: its name becomes a Python module, a Protobuf package and a part of scopes."""

import ast
import builtins
import re
from keyword import iskeyword
from pathlib import Path

from devstack.new_context import files, roots
from runtime.process.start_error import StartError

VALID = re.compile(r"[a-z][a-z0-9]*(_[a-z][a-z0-9]*)*")
LONGEST = 20
"""Letters, so that every line of a template keeps within the limit."""
PACKAGES = frozenset({"buf", "diptych", "google"})
"""What other packages begin with: Protobuf would look for them in the context's own package."""


def check(name: str, root: Path) -> None:
    """Refuse a name that cannot be had.

    Raises:
        StartError: it is no lower-case identifier, means something else already, or is taken.
    """
    if not VALID.fullmatch(name) or len(name) > LONGEST:
        like = f"a lower-case identifier like loyalty or gift_cards, of at most {LONGEST} letters"
        raise StartError(f"NAME must be {like}; it is {name!r}")
    if iskeyword(name) or hasattr(builtins, name) or name in PACKAGES:
        raise StartError(f"{name} means something else in Python or Protobuf: choose another NAME")
    folders = [f"{parent}/{name}" for parent in ("protos/diptych", "generated/diptych")]
    folders.append(f"command_server/contexts/{name}")
    for path in (*folders, *files.paths(name)):
        if (root / path).exists():
            raise StartError(f"{name} is taken: there is {path}")
    for path in roots.PATHS:
        if name in _names(roots.read(root, path)):
            raise StartError(f"{name} is taken: it is a name in {path}")


def _names(source: str) -> set[str]:
    """Return the names that a module gives to anything."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name) | ast.arg(arg=name) | ast.FunctionDef(name=name):
                found.add(name)
            case ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.alias(name=name, asname=other):
                found.add(other or name.partition(".")[0])
    return found
