"""Writes the files of a new context. `make new-context` then generates its stubs and recorded events."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from devstack.new_context import files, naming
from runtime.process.start_error import StartError

NEXT = """Generating
  generated/diptych/{name}/v1/
  tests/contract/events/diptych.{name}.v1.*.json

Next
  make check unit            check the new context; it passes unchanged
  make up                    serve it; its scopes are {name}.read and {name}.write
  docs/adding-a-context.md   purpose of each file, and how to replace the items"""


def main(name: str, root: Path) -> None:
    """Write a context into the working tree at `root`, and print the paths and the next steps.

    Raises:
        StartError: the name is invalid or taken. No file was written.
    """
    naming.check(name, root)
    new_files = files.render(name)
    for path, text in new_files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    _format(name, root, [path for path in new_files if path.endswith(".py")])
    click.echo("\n  ".join(["Wrote", *new_files]))
    click.echo(NEXT.format(name=name))


def _format(name: str, root: Path, python: Sequence[str]) -> None:
    """Format the files. The order of imports and the line breaks depend on the context's name."""
    tools = Path(sys.executable).parent
    for tool, *arguments in (
        ("ruff", "check", "--quiet", "--select", "I", "--fix", *python),
        ("ruff", "format", "--quiet", *python),
        ("buf", "format", "--write", "--path", f"protos/diptych/{name}"),
    ):
        subprocess.run([tools / tool, *arguments], cwd=root, check=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1], Path())
    except StartError as error:
        sys.exit(f"new-context: {error}")
