"""Projections: their lag, rebuilding them, and folding views again."""

import asyncio
import sys
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from time import monotonic, sleep
from typing import Any

import click
from diptych.operations.v1.operations_service_pb2 import (
    BuildGenerationRequest,
    CompareGenerationsRequest,
    ListGenerationsRequest,
    ListProjectionsRequest,
    PaceGenerationRequest,
    PruneGenerationRequest,
    RetryParkedAggregatesRequest,
    RollBackGenerationRequest,
    SwitchGenerationRequest,
)

from operations.cli_output import echo, echo_json, echo_lines, get_width
from operations.cli_parts import read_settings
from operations.cli_types import Duration, Number
from operations.client.api import OperationsApi, open_api
from operations.commands import options
from operations.rendering.json_lines import format_message, format_object
from operations.rendering.projections import (
    is_above,
    render_comparison,
    render_generations,
    render_lag,
    render_projections,
)
from runtime.process.start_error import StartError

LONG_TIMEOUT = 600.0
"""Seconds for an act that goes through all keys of Redis."""
POLL_INTERVAL = 0.2
"""Seconds between two looks at a build."""


_sample = click.option("--sample", type=Number(min=0), default=0, help="About how many views; default: all.")


@click.group()
def projections() -> None:
    """List and rebuild projections, and retry parked aggregates."""


@projections.command("list")
@click.argument("name", default="")
@options.as_json
def list_(name: str, as_json: bool) -> None:
    """List all projections, with the projectors that hold their partitions; or the projection NAME, with its
    generations."""
    with open_api() as api:
        found = api.call(api.stub.ListProjections, ListProjectionsRequest(projection=name)).projections
        request = ListGenerationsRequest(projection=name)
        generations = api.call(api.stub.ListGenerations, request).generations if name else ()
    if as_json:
        for each in (*found, *generations):
            echo_json(format_message(each))
    else:
        echo_lines([*render_projections(found, get_width()), *render_generations(generations, get_width())])


@projections.command()
@click.argument("name")
@options.rate
@click.option("--ignore-memory", is_flag=True, help="Begin although Redis may have too little memory.")
@click.option("--in-place", is_flag=True, help="Clear the generation that serves, and build it again.")
@click.option(
    "--within", type=Duration(), default="1h", show_default=True, help="How long to wait until it is ready."
)
@options.reason
@options.as_json
def rebuild(
    name: str,
    rate: float | None,
    ignore_memory: bool,
    in_place: bool,
    within: timedelta,
    reason: str,
    as_json: bool,
) -> None:
    """Build a new generation of the projection NAME beside the one that serves, and wait until it is ready.

    Nobody notices it: queries read the generation that serves until `diptych projections switch`. Without
    this command the build goes on; `diptych projections list NAME` shows how far it is.

    With --in-place, queries answer VIEW_REBUILDING meanwhile, and no further memory is needed.
    """
    if in_place:
        _rebuild_in_place(name, within, as_json)
        return
    request = BuildGenerationRequest(
        projection=name, rate=rate or 0, ignore_memory=ignore_memory, reason=reason
    )
    with open_api() as api:
        begun = api.call(api.stub.BuildGeneration, request, timeout=LONG_TIMEOUT, is_act=True)
        seconds = _wait_until_built(api, name, begun.generation, within.total_seconds())
    if as_json:
        echo_json(format_object({"projection": name, "generation": begun.generation, "seconds": seconds}))
    else:
        echo(f"generation {begun.generation} of {name} is ready after {seconds:.1f} s; compare and switch")


def _wait_until_built(api: OperationsApi, name: str, generation: str, within: float) -> float:
    """Show how far a build is until it is ready; return the seconds that it took.

    Raises:
        StartError: it is not ready within these seconds, or was pruned.
    """
    from operations.progress import Progress

    began, progress = monotonic(), Progress("% of the stream", partial(echo, err=True))
    while True:
        found = api.call(api.stub.ListGenerations, ListGenerationsRequest(projection=name)).generations
        current = [each for each in found if each.name == generation]
        if not current:
            raise StartError(f"generation {generation} of {name} was pruned")
        if current[0].ready:
            return monotonic() - began
        if monotonic() - began > within:
            raise StartError(
                f"generation {generation} of {name} is not ready after {within:.0f} s; it goes on"
            )
        progress.report(int(current[0].build_progress * 100), 100)
        sleep(POLL_INTERVAL)


def _rebuild_in_place(name: str, within: timedelta, as_json: bool) -> None:
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


@projections.command()
@click.argument("name")
@click.option("--generation", default="", help="The other one; default: the one built last.")
@_sample
@options.content
@options.as_json
def compare(name: str, generation: str, sample: int, content: Any, as_json: bool) -> None:
    """Compare a generation of the projection NAME with the one that serves, field by field.

    Exit code 0: no differences. 1: there are some. 2: it could not be done.
    """
    request = CompareGenerationsRequest(
        projection=name, generation=generation, sample=sample, content=content
    )
    with open_api() as api:
        comparison = _follow_comparison(api.follow(api.stub.CompareGenerations, request))
    _show_comparison(comparison, as_json)
    sys.exit(1 if comparison.differing_views else 0)


@projections.command()
@click.argument("name")
@click.option("--generation", default="", help="The one that is to serve; default: the one built last.")
@click.option("--accept", default="", metavar="FIELD,...", help="Fields that may differ.")
@_sample
@click.option("--force", is_flag=True, help="Switch whatever differs.")
@options.reason
@options.as_json
def switch(
    name: str, generation: str, accept: str, sample: int, force: bool, reason: str, as_json: bool
) -> None:
    """Compare the generations of the projection NAME, then answer all queries from the other one.

    It is refused if a field differs that is not among --accept. The comparison is recorded. The old
    generation is kept up to date until `diptych projections prune`, so that `rollback` takes effect at once.
    """
    fields = [each for each in accept.split(",") if each]
    request = SwitchGenerationRequest(
        projection=name,
        generation=generation,
        sample=sample,
        accepted_fields=fields,
        force=force,
        reason=reason,
    )
    with open_api() as api:
        responses = api.follow(api.stub.SwitchGeneration, request, is_act=True)
        comparison = _follow_comparison(responses)
    _show_comparison(comparison, as_json)
    if not as_json:
        echo(f"{name} is served from generation {comparison.generation}")


def _follow_comparison(responses: Iterator[Any]) -> Any:
    from operations.progress import Progress

    progress, comparison = Progress("views", partial(echo, err=True)), None
    for response in responses:
        progress.report(response.compared_views, response.compared_views)
        comparison = response.comparison if response.HasField("comparison") else comparison
    return comparison


def _show_comparison(comparison: Any, as_json: bool) -> None:
    if as_json:
        echo_json(format_message(comparison))
    else:
        echo_lines(render_comparison(comparison, get_width()))


@projections.command()
@click.argument("name")
@options.reason
@options.as_json
def rollback(name: str, reason: str, as_json: bool) -> None:
    """Answer queries of the projection NAME from the generation that served before."""
    request = RollBackGenerationRequest(projection=name, reason=reason)
    with open_api() as api:
        response = api.call(api.stub.RollBackGeneration, request, is_act=True)
    if as_json:
        echo_json(format_message(response))
    else:
        echo(f"{name} is served from generation {response.generation} again")


@projections.command()
@click.argument("name")
@options.reason
@options.as_json
def pause(name: str, reason: str, as_json: bool) -> None:
    """Pause the build of a new generation of the projection NAME."""
    _pace(PaceGenerationRequest(projection=name, paused=True, reason=reason), as_json)


@projections.command()
@click.argument("name")
@options.rate
@options.reason
@options.as_json
def resume(name: str, rate: float | None, reason: str, as_json: bool) -> None:
    """Let the build of a new generation of the projection NAME go on, at the same rate or at another one."""
    _pace(PaceGenerationRequest(projection=name, rate=rate, reason=reason), as_json)


def _pace(request: PaceGenerationRequest, as_json: bool) -> None:
    with open_api() as api:
        response = api.call(api.stub.PaceGeneration, request, is_act=True)
    if as_json:
        echo_json(format_message(response))
    else:
        echo_lines(render_generations([response.generation], get_width()))


@projections.command()
@click.argument("name")
@click.argument("generation")
@options.reason
@options.as_json
def prune(name: str, generation: str, reason: str, as_json: bool) -> None:
    """Delete a GENERATION of the projection NAME that does not serve."""
    request = PruneGenerationRequest(projection=name, generation=generation, reason=reason)
    with open_api() as api:
        response = api.call(api.stub.PruneGeneration, request, timeout=LONG_TIMEOUT, is_act=True)
    if as_json:
        echo_json(format_message(response))
    else:
        echo(f"generation {generation} of {name} is deleted, {response.deleted_keys:,} keys")


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
