"""Projections: their lag, rebuilding them, and the aggregates that are parked in them."""

import asyncio
import sys
from datetime import timedelta
from functools import partial

import click
from diptych.operations.v1.operations_service_pb2 import (
    ListParkedAggregatesRequest,
    ListProjectionsRequest,
    RetryParkedAggregatesRequest,
)

from operations.cli_output import echo, echo_json, echo_lines, get_width
from operations.cli_parts import read_settings
from operations.cli_types import Duration
from operations.client.api import open_api
from operations.commands import options
from operations.commands.listing import show_list
from operations.rendering.json_lines import format_message, format_object
from operations.rendering.projections import is_above, render_lag, render_parked, render_projections


@click.group()
def projections() -> None:
    """List and rebuild projections, and retry parked aggregates."""


@projections.command("list")
@click.argument("name", default="")
@options.as_json
def list_(name: str, as_json: bool) -> None:
    """List all projections, or the projection NAME, with the projectors that hold their partitions."""
    with open_api() as api:
        found = api.call(api.stub.ListProjections, ListProjectionsRequest(projection=name)).projections
    if as_json:
        for each in found:
            echo_json(format_message(each))
    else:
        echo_lines(render_projections(found, get_width()))


@projections.command()
@click.argument("name")
@click.option(
    "--within", type=Duration(), default="1h", show_default=True, help="How long to wait until it is ready."
)
@options.as_json
def rebuild(name: str, within: timedelta, as_json: bool) -> None:
    """Rebuild the projection NAME from the stream, in place; its queries answer VIEW_REBUILDING meanwhile."""
    from operations import projections
    from operations.progress import Progress

    settings = read_settings()
    view = projections.find_view(settings, name)
    progress = Progress("messages", partial(echo, err=True))
    seconds = asyncio.run(projections.rebuild(settings, view, within.total_seconds(), progress.report))
    if as_json:
        echo_json(format_object({"projection": name, "seconds": seconds}))
    else:
        echo(f"{name} is ready again after {seconds:.1f} s")


@projections.command("retry")
@click.argument("name")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@options.reason
@options.as_json
def retry_parked(name: str, ids: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Retry the parked aggregates of these IDs in the projection NAME, or all of them.

    Projectors read on from the version that the view has reached. Where an ID is not parked, its view is
    folded again from the first event, with its history: for a view that is archived, that cannot be read, or
    that differs from its events. An archived one stays until the next round of housekeeping.
    """
    request = RetryParkedAggregatesRequest(projection=name, ids=ids, reason=reason)
    with open_api() as api:
        response = api.call(api.stub.RetryParkedAggregates, request, is_act=True)
    if as_json:
        echo_json(format_message(response))
    else:
        echo(f"{response.retried} aggregates of {name} are retried within seconds")


@click.command()
@click.argument("projection", default="")
@click.option("--id", "id_", default="", help="Only this aggregate.")
@click.option("--error", default="", metavar="TEXT", help="Only those whose error contains this text.")
@options.limit
@options.as_json
def parked(projection: str, id_: str, error: str, limit: int, as_json: bool) -> None:
    """List the aggregates that wait in PROJECTION, or in all, because an event of theirs cannot be applied.

    The longest waiting come first. `diptych projections retry` has them tried again.
    """
    request = ListParkedAggregatesRequest(projection=projection, id=id_, error=error)
    show_list("ListParkedAggregates", request, limit, as_json, render_parked, "no parked aggregates")


@click.command()
@click.argument("projection", default="")
@click.option("--alert", type=Duration(), help="Exit with 1 if an event has waited longer than this.")
@click.option("--partitions", "by_partition", is_flag=True, help="Show each partition with its holder.")
@options.as_json
def lag(projection: str, alert: timedelta | None, by_partition: bool, as_json: bool) -> None:
    """Show how far PROJECTION is behind, or all: the events that it lacks, and the age of the oldest.

    Exit code 0: no alert. 1: an event has waited longer than --alert, a projection is being built, or a lag
    cannot be read. 2: the operations server could not be asked.
    """
    limit = None if alert is None else alert.total_seconds()
    with open_api() as api:
        request = ListProjectionsRequest(projection=projection)
        found = api.call(api.stub.ListProjections, request).projections
    if as_json:
        for each in found:
            echo_json(format_message(each))
    else:
        echo_lines(render_lag(found, limit, by_partition, get_width()))
    sys.exit(1 if any(is_above(each, limit) for each in found) else 0)
