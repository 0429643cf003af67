"""The `diptych` command line. What goes wrong is one line on stderr, and exit code 1."""

import asyncio
import sys
from datetime import timedelta

import click

from operations import events, projections, status, tokens, up
from operations.away import AWAY, why
from operations.stack import migrate
from runtime import lifecycle, logs
from runtime.errors import StartError
from runtime.settings import Settings

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Lifetime(click.ParamType[timedelta]):
    """A time span as people write it: 90s, 15m, 1h, 7d."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the time span, or say what one looks like."""
        number, unit = str(value)[:-1], str(value)[-1:]
        if not number.isdecimal() or unit not in _SECONDS:
            self.fail(f"{value!r} is not a time like 90s, 15m, 1h or 7d", param, ctx)
        return timedelta(seconds=int(number) * _SECONDS[unit])


class Commands(click.Group):
    """Commands whose failure is a line, not a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except StartError as error:
            raise click.ClickException(str(error)) from error
        except AWAY as error:
            raise click.ClickException(f"a server is away: {why(error)}") from error


@click.group(cls=Commands)
def main() -> None:
    """Diptych's local stack, and what an operator needs. Servers are found by the DIPTYCH_* variables."""
    logs.configure("error", "console", sys.stderr.buffer)


@main.command(name="up")
def up_() -> None:
    """Run the local stack until Ctrl-C; its data stays in .diptych/."""
    up.run(lifecycle.settings())


@main.command(name="migrate")
def migrate_() -> None:
    """Bring the database to the newest revision."""
    asyncio.run(migrate(lifecycle.settings().database_url))
    click.echo("the database is at the newest revision")


@main.command()
@click.option("--scope", "scopes", multiple=True, help="May be given several times.")
@click.option("--subject", default="alice", show_default=True, help="Who calls.")
@click.option("--ttl", type=Lifetime(), default="1h", show_default=True, help="How long it is valid.")
def token(scopes: tuple[str, ...], subject: str, ttl: timedelta) -> None:
    """Print a token for the local stack."""
    click.echo(tokens.mint(lifecycle.settings(), scopes, subject, ttl))


@main.command(name="status")
def status_() -> None:
    """Show on a page how everything is."""
    click.echo(asyncio.run(status.page(lifecycle.settings())))


@main.group(name="projections")
def projections_() -> None:
    """Look after projections."""


@projections_.command()
@click.argument("name")
@click.option("--within", type=Lifetime(), default="1h", show_default=True, help="How long to wait for it.")
def rebuild(name: str, within: timedelta) -> None:
    """Wipe the projection NAME and fill it again from the stream; queries wait meanwhile."""
    view = projections.find(name)
    seconds = asyncio.run(projections.rebuild(lifecycle.settings().redis_url, view, within.total_seconds()))
    click.echo(f"{name} is present again after {seconds:.1f} s")


@main.command(name="events")
@click.argument("stream")
def events_(stream: str) -> None:
    """Print the events of STREAM, <context>.<aggregate>.<id>, as lines of JSON."""
    asyncio.run(_print_events(lifecycle.settings(), stream))


async def _print_events(settings: Settings, stream: str) -> None:
    async for line in events.of_stream(settings.database_url, stream):
        click.echo(line)


if __name__ == "__main__":
    main()
