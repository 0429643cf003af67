"""The composition roots: files that list all contexts, each of which gets one more entry."""

import re
from dataclasses import dataclass
from pathlib import Path

from runtime.process.start_error import StartError


@dataclass(frozen=True)
class Root:
    """A file that lists something of every context.

    Args:
        path: the file's path from the root of the repository.
        listing: the name of the tuple or dict that lists the contexts.
        entry: the entry of one context in it, with `{name}` for the context's name.
        package: the package from which the file imports the contexts' modules; empty for none.
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
    Root(
        "tests/contract/test_recorded_events.py",
        "FIRST_EVENTS",
        '"{name}.item": "diptych.{name}.v1.ItemAdded"',
    ),
)
PATHS = tuple(root.path for root in ROOTS)


def render(name: str, repository: Path) -> dict[str, str]:
    """Return the new texts of all composition roots by path, with the context added.

    Raises:
        StartError: a file cannot be read, or does not list the contexts in the expected form.
    """
    return {root.path: _add_context(root, name, read(repository, root.path)) for root in ROOTS}


def read(repository: Path, path: str) -> str:
    """Return the text of a file of the repository.

    Raises:
        StartError: the file cannot be read.
    """
    try:
        return (repository / path).read_text()
    except OSError as error:
        raise StartError(f"{path}: cannot be read: {error.strerror}") from error


def _add_context(root: Root, name: str, text: str) -> str:
    listing = rf"^{root.listing}(?:: [^=\n]+)? = [({{](?P<entries>[^(){{}}#]*)[)}}]$"
    text = _append(text, listing, root.entry.format(name=name), f"{root.path}: no list {root.listing}")
    if root.package:
        imports = rf"^from {re.escape(root.package)} import (?P<entries>\([^()#]*(?=\))|[^()#\\\n]+$)"
        text = _append(text, imports, name, f"{root.path}: no import from {root.package}")
    return text


def _append(text: str, pattern: str, entry: str, error: str) -> str:
    """Return the text with an entry at the end of the only list that matches the pattern.

    Args:
        text: the text of a file.
        pattern: a multi-line pattern whose group `entries` matches the existing entries.
        entry: the new entry.
        error: the start of the error text, used if the pattern does not match exactly once.
    """
    matches = list(re.finditer(pattern, text, re.MULTILINE))
    if len(matches) != 1:
        raise StartError(f"{error} in the expected form: add {entry} by hand (docs/adding-a-context.md)")
    entries = matches[0]["entries"].rstrip()
    end = matches[0].start("entries") + len(entries)
    comma = "," if entries.endswith(",") else ""  # ruff keeps one entry per line if the last has a comma
    return f"{text[: end - len(comma)]}, {entry}{comma}{text[end:]}"
