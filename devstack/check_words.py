"""Keeps private words out of identifiers: `make lint` fails if a name uses one instead of the standard term.

An identifier is split into words at underscores and capitals. Prose is not checked.
"""

import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

from devstack.word_list import NAMES, WORDS

FOLDERS = (
    "contracts",
    "runtime",
    "command_server",
    "projector",
    "query_server",
    "process_manager",
    "operations",
    "operations_server",
    "devstack",
    "diptych_testing",
    "client",
    "bench",
    "deploy",
    "tests",
)
PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
SUSPECT = re.compile("|".join((*WORDS, *NAMES)), re.IGNORECASE)
"""Occurs in every file with a private word; the other files need no tokenizing, which is slow."""


def find_private_words(path: Path) -> Iterator[str]:
    """Yield a line for each identifier in a Python file that should have another name."""
    if not SUSPECT.search(path.read_text()):
        return
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type == tokenize.NAME and (term := standard_term(token.string)):
                yield f"{path}:{token.start[0]}: {token.string}: use {term}"


def standard_term(identifier: str) -> str | None:
    """Return the term to use instead of an identifier's private word; None where it has none."""
    if identifier in NAMES:
        return NAMES[identifier]
    parts = (part.lower() for part in PART.findall(identifier))
    return next((WORDS[part] for part in parts if part in WORDS), None)


def main(root: Path) -> int:
    """Print the findings; return the exit code."""
    files = (path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py")))
    lines = [line for path in files for line in find_private_words(path)]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(Path()))
