"""Commands for developers of contexts: a new context's repository, and the stubs of its protos."""

from pathlib import Path

import click

from operations.cli_output import echo


@click.command()
@click.argument("name")
@click.argument("aggregate")
def new(name: str, aggregate: str) -> None:
    """Write a repository for a context NAME with one AGGREGATE, for instance loyalty member.

    It goes into the folder NAME.
    """
    from operations.new_context import repository

    echo(repository.create(name, aggregate))


@click.command()
@click.argument("protos", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
def generate(protos: Path, out: Path) -> None:
    """Generate Python stubs from the folder PROTOS into the source root OUT."""
    from operations.generate import generate

    files = generate(protos, out)
    echo(f"generated the stubs of {len(files)} protos")
