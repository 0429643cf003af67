"""Commands that need the stores themselves: migrate, restored, verify and housekeeping."""

import asyncio
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import click
from diptych.operations.v1.operations_service_pb2 import RetryParkedAggregatesRequest

from operations.cli_output import echo, echo_json
from operations.cli_parts import read_settings
from operations.cli_types import Duration, Reason
from operations.client.api import open_api
from operations.commands import options
from operations.rendering.json_lines import format_message, format_object

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
@click.option(
    "--repair",
    nargs=2,
    multiple=True,
    metavar="PROJECTION ID",
    help="Fold this view again instead, with its history; several times for several views.",
)
@click.option("--reason", type=Reason(), help="Why it is repaired; it is recorded.")
@options.as_json
def verify(
    within: timedelta, findings: int, repair: tuple[tuple[str, str], ...], reason: str | None, as_json: bool
) -> None:
    """Compare all derived data with an independent fold of the events.

    With --repair nothing is compared: projectors fold the views again from their first events.

    Exit code 0: no difference. 1: differences. 2: the comparison was not possible.
    """
    if repair:
        _repair(repair, reason, as_json)
        return
    from operations.verify import command

    sys.exit(command.run(read_settings(), within.total_seconds(), findings, as_json))


def _repair(views: Sequence[tuple[str, str]], reason: str | None, as_json: bool) -> None:
    """Have views folded again; an act of the operations server for each."""
    if reason is None:
        raise click.BadParameter("--repair needs a reason", param_hint="--reason")
    with open_api() as api:
        for projection, id_ in views:
            request = RetryParkedAggregatesRequest(projection=projection, ids=[id_], reason=reason)
            response = api.call(api.stub.RetryParkedAggregates, request, is_act=True)
            if as_json:
                echo_json(format_message(response))
            else:
                echo(f"{projection} {id_} is folded again within seconds")


@click.command()
@click.option("--every", type=Duration(), help="Run on, with a round at this interval, for instance 1h.")
@click.option("--dry-run", is_flag=True, help="Count what would be removed, and change nothing.")
@click.option(
    "--unexported",
    is_flag=True,
    help="Remove sealed records, too, that `diptych audit export` has not exported.",
)
@options.as_json
def housekeeping(every: timedelta | None, dry_run: bool, unexported: bool, as_json: bool) -> None:
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
    sys.exit(command.run(read_settings(), every, dry_run, report, unexported=unexported))
