"""Writes the files of a new context into this repository: `make new-context NAME=... AGGREGATE=...`.

The target then generates the context's stubs and recorded events.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from operations.new_context.files import INSIDE
from operations.new_context.naming import Names
from operations.new_context.writing import write
from runtime.process.start_error import StartError

NEXT = """Generating
  generated/diptych/{context}/v1/
  tests/contract/events/diptych.{context}.v1.*.json

Next
  make check unit            check the new context; it passes unchanged
  make up                    serve it; its scopes are {context}.read and {context}.write
  docs/adding-a-context.md   purpose of each file, and how to go on"""


def main(names: Names, root: Path) -> None:
    """Write a context into the working tree at `root`, and print the paths and the next steps.

    Raises:
        StartError: a name is taken. No file was written.
    """
    for folder in ("protos/diptych", "generated/diptych", "command_server/contexts"):
        if (root / folder / names.context).exists():
            raise StartError(f"NAME: {names.context} is taken: {folder}/{names.context} exists")
    paths = write(INSIDE, names, root)
    _format(names, root, [path for path in paths if path.endswith(".py")])
    click.echo("\n  ".join(["Wrote", *paths]))
    click.echo(NEXT.format(context=names.context))


def _format(names: Names, root: Path, python: Sequence[str]) -> None:
    """Format the files. The order of imports and the line breaks depend on the names."""
    tools = Path(sys.executable).parent
    for tool, *arguments in (
        ("ruff", "check", "--quiet", "--select", "I", "--fix", *python),
        ("ruff", "format", "--quiet", *python),
        ("buf", "format", "--write", "--path", f"protos/diptych/{names.context}"),
    ):
        subprocess.run([tools / tool, *arguments], cwd=root, check=True)  # noqa: S603 - our own tools


if __name__ == "__main__":
    try:
        main(Names(*sys.argv[1:3]), Path())
    except StartError as error:
        sys.exit(f"new-context: {error}")
