"""Commands that read the stores themselves, until the operations server answers what they ask."""

import asyncio
from datetime import timedelta
from functools import partial

import click

from operations.cli_output import echo
from operations.cli_parts import read_settings
from operations.cli_types import Duration


@click.command()
def status() -> None:
    """Show the state of processes, outbox, stream and projections."""
    from operations import status

    echo(asyncio.run(status.render(read_settings())))


@click.group()
def projections() -> None:
    """Rebuild projections, and retry parked aggregates."""


@projections.command()
@click.argument("name")
@click.option(
    "--within", type=Duration(), default="1h", show_default=True, help="How long to wait until it is ready."
)
def rebuild(name: str, within: timedelta) -> None:
    """Rebuild the projection NAME from the stream, in place; its queries answer VIEW_REBUILDING meanwhile."""
    from operations import projections
    from operations.progress import Progress

    settings = read_settings()
    view = projections.find_view(settings, name)
    progress = Progress("messages", partial(echo, err=True))
    seconds = asyncio.run(projections.rebuild(settings, view, within.total_seconds(), progress.report))
    echo(f"{name} is ready again after {seconds:.1f} s")


@projections.command("retry")
@click.argument("name")
@click.argument("ids", nargs=-1, metavar="[ID]...")
def retry_parked(name: str, ids: tuple[str, ...]) -> None:
    """Retry the parked aggregates of these IDs in the projection NAME, or all of them.

    Projectors read on from the version that the view has reached. Where an ID is not parked, its view is
    folded again from the first event, with its history: for a view that is archived, that cannot be read, or
    that differs from its events. An archived one stays until the next round of housekeeping.
    """
    from operations import parked_aggregates, projections

    settings = read_settings()
    view = projections.find_view(settings, name)
    count = asyncio.run(parked_aggregates.retry(settings, view, ids))
    echo(f"{count} aggregates of {name} are retried within seconds")


@click.command()
@click.option("--since", type=Duration(), default="1h", show_default=True, help="The time until now.")
@click.option("--limit", default=50, show_default=True, help="The maximum number of lines.")
def refused(since: timedelta, limit: int) -> None:
    """List the calls that were refused: unauthenticated, denied or invalid ones, the most frequent first."""
    from operations import refused_calls

    echo(asyncio.run(refused_calls.list_refused_calls(read_settings(), since, limit)))
