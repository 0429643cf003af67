"""The `diptych` command line. What goes wrong is one line on stderr, and exit code 1.

Commands import what they need when they run, so that each starts as fast as it can.
"""

import asyncio
import sys
from datetime import timedelta

import click

from operations.command_line import CommandGroup, Duration, read_settings


@click.group(cls=CommandGroup)
def main() -> None:
    """Operate Diptych. The DIPTYCH_* variables name the servers."""


@main.command()
def migrate() -> None:
    """Bring the database to the newest revision."""
    from operations.migrate import migrate

    asyncio.run(migrate(read_settings().database_url))
    click.echo("the database is at the newest revision")


@main.command()
def status() -> None:
    """Show on a page how everything is."""
    from operations import status

    click.echo(asyncio.run(status.page(read_settings())))


@main.group()
def projections() -> None:
    """Look after projections."""


@projections.command()
@click.argument("name")
@click.option("--within", type=Duration(), default="1h", show_default=True, help="How long to wait for it.")
def rebuild(name: str, within: timedelta) -> None:
    """Wipe the projection NAME and fill it again from the stream; queries wait meanwhile."""
    from operations import projections

    settings, view = read_settings(), projections.find(name)
    seconds = asyncio.run(projections.rebuild(settings.redis_url, view, within.total_seconds()))
    click.echo(f"{name} is present again after {seconds:.1f} s")


@main.group()
def sagas() -> None:
    """Look after sagas: what is under way between the contexts."""


_kind = click.option(
    "--saga", "kind", default="", metavar="KIND", help="Of this kind, where it is not clear."
)


@sagas.command("list")
@_kind
@click.option("--state", default="", help="Only those in this state, for instance UNWINDING.")
@click.option("--ended", is_flag=True, help="Those that have ended, too.")
@click.option("--limit", default=50, show_default=True, help="How many of each kind at the most.")
def list_(kind: str, state: str, ended: bool, limit: int) -> None:
    """List sagas that have not ended, overdue ones first."""
    from operations import sagas

    click.echo(asyncio.run(sagas.page(read_settings(), kind, state.upper(), ended or bool(state), limit)))


@sagas.command()
@click.argument("saga_id")
@_kind
def show(saga_id: str, kind: str) -> None:
    """Show where a saga is, what it sent, and what it waits for. SAGA_ID is an order's, for instance."""
    from operations import sagas

    click.echo(asyncio.run(sagas.story(read_settings(), saga_id, kind)))


@sagas.command()
@click.argument("saga_id")
@_kind
def retry(saga_id: str, kind: str) -> None:
    """Let a saga try again what it is stopped at."""
    from operations import sagas

    click.echo(asyncio.run(sagas.retry(read_settings(), saga_id, kind)))


@sagas.command()
@click.argument("saga_id")
@_kind
@click.option("--reason", required=True, help="Why; it goes on record, and to whom it concerns.")
def abort(saga_id: str, kind: str, reason: str) -> None:
    """Let a saga end; what can be undone is undone."""
    from operations import sagas

    click.echo(asyncio.run(sagas.abort(read_settings(), saga_id, kind, reason)))


@main.command()
@click.argument("stream")
def events(stream: str) -> None:
    """Print the events of STREAM as JSON.

    STREAM is <context>.<aggregate>.<id>, for instance ordering.order.o-1.
    """
    from operations import events

    async def show() -> None:
        async for line in events.of_stream(settings.database_url, stream):
            click.echo(line)

    settings = read_settings()
    asyncio.run(show())


@main.command()
@click.option(
    "--within", type=Duration(), default="60s", show_default=True, help="How long to wait for what is behind."
)
@click.option("--findings", default=20, show_default=True, help="How many findings of each check to show.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(within: timedelta, findings: int, as_json: bool) -> None:
    """Compare everything that is derived from the events with another fold of them.

    Exit code 0: all is as it should be. 1: it is not. 2: it could not be checked.
    """
    from operations.verify import command

    sys.exit(command.run(read_settings(), within.total_seconds(), findings, as_json))


@main.command()
def restored() -> None:
    """Say that PostgreSQL was restored from a backup, or failed over with loss."""
    from operations import restored

    old, new = asyncio.run(restored.restored(read_settings().database_url))
    click.echo(f"old incarnation  {old}\nnew incarnation  {new}\n{restored.NEXT}")


if __name__ == "__main__":
    main()
