"""Events on record, and events as they are committed."""

from datetime import datetime
from typing import Any

import click
from diptych.operations.v1.operations_service_pb2 import ListEventsRequest, TailEventsRequest

from operations.cli_output import echo_json, echo_lines, get_width
from operations.cli_types import AsOf, AsOfType, Number, to_timestamp
from operations.client.api import open_api
from operations.commands import options
from operations.commands.export import export
from operations.commands.listing import show_list
from operations.rendering.json_lines import format_message
from operations.rendering.records import render_events
from runtime.process.start_error import NotAsked

LIST = "list"


class EventsGroup(click.Group):
    """A group whose command `list` needs no name: `diptych events STREAM`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        is_completion = ctx.resilient_parsing and not args
        is_named = bool(args) and (args[0] in self.commands or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if is_named or is_completion else [LIST, *args])


@click.group(cls=EventsGroup)
def events() -> None:
    """List events (diptych events STREAM), or follow them as they are committed."""


_type = click.option("--type", "type_", default="", help="Only those of this type, for instance OrderPlaced.")
_correlation = click.option(
    "--correlation", default="", metavar="ID", help="Only those with this correlation id."
)
_causation = click.option("--causation", default="", metavar="ID", help="Only those with this causation id.")


@events.command(LIST)
@click.argument("stream", default="")
@_type
@_correlation
@_causation
@options.since
@options.until
@click.option("--after", type=Number(min=0), default=0, help="Only those after this position.")
@click.option("--as-of", type=AsOfType(), help="Only those up to this version, or this time.")
@options.content
@options.limit
@options.as_json
def list_(
    stream: str,
    type_: str,
    correlation: str,
    causation: str,
    since: datetime | None,
    until: datetime | None,
    after: int,
    as_of: AsOf | None,
    content: Any,
    limit: int,
    as_json: bool,
) -> None:
    """List the events of STREAM in order of their versions, or others in order of their positions.

    STREAM is <context>.<aggregate>.<id>, for instance ordering.order.o-1. The word `list` may be left out.
    """
    if until and as_of and as_of.time:
        raise click.UsageError("--until and --as-of are two ends: give one of them")
    request = ListEventsRequest(
        stream=stream,
        type=type_,
        correlation_id=correlation,
        causation_id=causation,
        from_time=to_timestamp(since),
        until_time=to_timestamp(until),
        after_position=after,
        content=content,
    )
    if as_of:
        _end_at(request, as_of)
    nothing = f"no events of {stream}" if stream else "no events"
    show_list("ListEvents", request, limit, as_json, render_events, nothing)


def _end_at(request: Any, as_of: AsOf) -> None:
    if as_of.version and not request.stream:
        raise click.UsageError("--as-of: a version needs a STREAM")
    request.until_version = as_of.version
    if as_of.time:
        request.as_of.FromDatetime(as_of.time)


@events.command()
@click.argument("stream", default="")
@_type
@_correlation
@_causation
@click.option("--after", type=Number(min=0), help="Begin after this position; default: from now on.")
@options.content
@options.as_json
def tail(
    stream: str,
    type_: str,
    correlation: str,
    causation: str,
    after: int | None,
    content: Any,
    as_json: bool,
) -> None:
    """Print events as they are committed, of STREAM or of all, until Ctrl-C."""
    request = TailEventsRequest(
        stream=stream,
        type=type_,
        correlation_id=correlation,
        causation_id=causation,
        after_position=after,
        content=content,
    )
    with open_api() as api:
        try:
            for response in api.follow(api.stub.TailEvents, request):
                request.after_position = response.position
                for event in response.events if as_json else ():
                    echo_json(format_message(event))
                if not as_json:
                    echo_lines(render_events(response.events, get_width()))
        except NotAsked as error:
            if not request.HasField("after_position"):
                raise
            raise NotAsked(f"{error}; continue with --after {request.after_position}") from error


events.add_command(export)
