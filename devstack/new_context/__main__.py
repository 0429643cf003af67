"""Writes the context; `make new-context` then generates what follows from its protos."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from devstack.new_context import files, naming, roots
from runtime.process.start_error import StartError

NEXT = """Generates from them
  generated/diptych/{name}/v1/
  tests/contract/events/diptych.{name}.v1.*.json

Next
  make check unit            passes as it is
  make up                    serves it; its scopes are {name}.read and {name}.write
  docs/adding-a-context.md   what each file is for, and how to make the items into what {name} is about"""


def main(name: str, root: Path) -> None:
    """Write a context into the working tree at `root`, and say what was written and what comes next.

    Raises:
        StartError: the name cannot be had, or a file is not as expected; nothing was written.
    """
    naming.check(name, root)
    written, changed = files.of(name), roots.changed(name, root)
    for path, text in (written | changed).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    _tidy(name, root, [path for path in (*written, *changed) if path.endswith(".py")])
    for verb, paths in (("Wrote", written), ("Changed", changed)):
        click.echo("\n  ".join([verb, *paths]))
    click.echo(NEXT.format(name=name))


def _tidy(name: str, root: Path, python: Sequence[str]) -> None:
    """Lay out lines and imports, whose order depends on the name."""
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
