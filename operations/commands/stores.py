"""Commands that need the stores themselves: migrate, restored, verify and housekeeping."""

import asyncio
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from operations.cli_output import echo, echo_json
from operations.cli_parts import read_settings
from operations.cli_types import Duration
from operations.commands import options
from operations.rendering.json_lines import format_object

if TYPE_CHECKING:
    from operations.housekeeping.kinds import Entry


@click.command()
@options.as_json
def migrate(as_json: bool) -> None:
    """Bring the database to the newest revision."""
    from operations.migrate import migrate

    asyncio.run(migrate(read_settings().database_url))
    if as_json:
        echo_json(format_object({"at_newest_revision": True}))
    else:
        echo("the database is at the newest revision")


@click.command()
@options.as_json
def restored(as_json: bool) -> None:
    """Give the database a new incarnation after it was restored from a backup or failed over with loss."""
    from operations import incarnation

    old, new = asyncio.run(incarnation.replace_incarnation(read_settings().database_url))
    if as_json:
        echo_json(format_object({"old_incarnation": old, "new_incarnation": new}))
    else:
        echo(f"old incarnation  {old}\nnew incarnation  {new}\n{incarnation.NEXT_STEPS}")


@click.command()
@click.option(
    "--within",
    type=Duration(),
    default="60s",
    show_default=True,
    help="How long to wait for data that is behind.",
)
@click.option("--findings", default=20, show_default=True, help="How many findings of each check to show.")
@options.as_json
def verify(within: timedelta, findings: int, as_json: bool) -> None:
    """Compare all derived data with an independent fold of the events.

    Exit code 0: no difference. 1: differences. 2: the comparison was not possible.
    """
    from operations.verify import command

    sys.exit(command.run(read_settings(), within.total_seconds(), findings, as_json))


@click.command()
@click.option("--every", type=Duration(), help="Run on, with a round at this interval, for instance 1h.")
@click.option("--dry-run", is_flag=True, help="Count what would be removed, and change nothing.")
@options.as_json
def housekeeping(every: timedelta | None, dry_run: bool, as_json: bool) -> None:
    """Remove what its retention no longer keeps (the settings DIPTYCH_KEEP_*), and make partitions ahead.

    Exit code 1: something could not be done.
    """
    from operations.housekeeping import command

    def report(entry: "Entry") -> None:
        if as_json:
            echo_json(format_object(entry.facts))
        else:
            echo(entry.text)

    if every == timedelta(0):
        raise click.BadParameter("an interval is at least 1s", param_hint="--every")
    sys.exit(command.run(read_settings(), every, dry_run, report))
