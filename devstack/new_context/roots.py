"""The lines by which the rest of the repository learns of a context: one in each composition root."""

import re
from dataclasses import dataclass
from pathlib import Path

from runtime.process.start_error import StartError


@dataclass(frozen=True)
class Root:
    """A file that lists something of every context.

    Args:
        path: the file.
        listing: the name of the tuple or dict that does.
        entry: what a context adds to it.
        package: where the file imports the contexts' modules from; nothing where it needs none.
    """

    path: str
    listing: str
    entry: str
    package: str = ""


ROOTS = (
    Root("command_server/__main__.py", "CONTEXTS", "{name}.CONTEXT", "command_server.contexts"),
    Root("query_server/__main__.py", "CONTEXTS", "{name}.CONTEXT", "query_server.contexts"),
    Root("projector/__main__.py", "PROJECTIONS", "*{name}.PROJECTIONS", "projector.projections"),
    Root(
        "operations/verify/verification.py", "AGGREGATES", "*{name}.AGGREGATES", "operations.verify.contexts"
    ),
    Root("tests/contract/test_recorded_events.py", "FIRST", '"{name}.item": "diptych.{name}.v1.ItemAdded"'),
)
PATHS = tuple(root.path for root in ROOTS)


def changed(name: str, root: Path) -> dict[str, str]:
    """Return the texts of all these files with a context in them, by their paths.

    Raises:
        StartError: a file is not there, or does not list contexts as it used to.
    """
    return {one.path: _with(one, name, read(root, one.path)) for one in ROOTS}


def read(root: Path, path: str) -> str:
    """Return the text of a file of the repository.

    Raises:
        StartError: it is not there.
    """
    try:
        return (root / path).read_text()
    except OSError as error:
        raise StartError(f"{path} cannot be read: {error.strerror}") from error


def _with(root: Root, name: str, text: str) -> str:
    listing = rf"^{root.listing}(?:: [^=\n]+)? = [({{](?P<those>[^(){{}}#]*)[)}}]$"
    text = _longer(text, listing, root.entry.format(name=name), f"{root.path}: no list {root.listing}")
    if root.package:
        imports = rf"^from {re.escape(root.package)} import (?P<those>\([^()#]*(?=\))|[^()#\\\n]+$)"
        text = _longer(text, imports, name, f"{root.path}: no import from {root.package}")
    return text


def _longer(text: str, pattern: str, entry: str, missing: str) -> str:
    """Return the text with an entry at the end of the list whose entries the pattern finds."""
    found = list(re.finditer(pattern, text, re.MULTILINE))
    if len(found) != 1:
        raise StartError(f"{missing} as it is expected, so add {entry} by hand (docs/adding-a-context.md)")
    those = found[0]["those"].rstrip()
    end = found[0].start("those") + len(those)
    comma = "," if those.endswith(",") else ""  # one at the end keeps each entry on its own line
    return f"{text[: end - len(comma)]}, {entry}{comma}{text[end:]}"
