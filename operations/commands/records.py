"""Answered commands, refused calls, states of aggregates, and explanations."""

from datetime import datetime
from typing import Any

import click
from diptych.operations.v1.operations_service_pb2 import (
    ExplainRequest,
    GetStateRequest,
    ListRefusedCallsRequest,
    ListRequestsRequest,
)

from operations.cli_output import echo_json, echo_lines, get_width
from operations.cli_types import AsOf, to_timestamp
from operations.client.api import open_api
from operations.commands import options
from operations.commands.listing import show_list
from operations.rendering.json_lines import format_message
from operations.rendering.layout import Line
from operations.rendering.records import (
    render_explanation,
    render_refused_calls,
    render_requests,
    render_state,
)


@click.command()
@click.option("--id", "request_id", default="", metavar="ID", help="The request with this id.")
@click.option("--caller", default="", help="Only those of this caller.")
@click.option("--outcome", default="", help="ACCEPTED, REJECTED, or the reason of a rejection.")
@click.option("--stream", default="", help="Only those of this stream, for instance ordering.order.o-1.")
@click.option("--correlation", default="", metavar="ID", help="Only those with this correlation id.")
@click.option("--causation", default="", metavar="ID", help="Only those with this causation id.")
@click.option("--command", default="", help="Only those of this command, for instance PlaceOrder.")
@options.since
@options.until
@options.limit
@options.as_json
def requests(
    request_id: str,
    caller: str,
    outcome: str,
    stream: str,
    correlation: str,
    causation: str,
    command: str,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """List answered commands, accepted or rejected, the latest first."""
    request = ListRequestsRequest(
        request_id=request_id,
        caller=caller,
        outcome=outcome,
        stream=stream,
        correlation_id=correlation,
        causation_id=causation,
        command=command,
        from_time=to_timestamp(since),
        until_time=to_timestamp(until),
    )
    show_list("ListRequests", request, limit, as_json, render_requests, "no requests on record")


@click.command()
@click.option("--caller", default="", help="Only those of this caller.")
@click.option("--reason", default="", help="Only those with this reason.")
@options.since
@options.limit
@options.as_json
def refused(caller: str, reason: str, since: datetime | None, limit: int, as_json: bool) -> None:
    """List the calls that were refused: unauthenticated, denied or invalid ones, the most frequent first.

    They are those of the last day unless --since says otherwise.
    """
    request = ListRefusedCallsRequest(caller=caller, reason=reason, from_time=to_timestamp(since))
    nothing = "no refused calls on record"
    show_list("ListRefusedCalls", request, limit, as_json, render_refused_calls, nothing)


@click.command()
@click.argument("stream")
@options.as_of
@options.content
@options.as_json
def state(stream: str, as_of: AsOf | None, content: Any, as_json: bool) -> None:
    """Show the state of STREAM and its views, folded from its events, now or at an earlier time or version.

    STREAM is <context>.<aggregate>.<id>, for instance ordering.order.o-1.
    """
    request = (as_of or AsOf()).apply(GetStateRequest(stream=stream, content=content))
    with open_api() as api:
        response = api.call(api.stub.GetState, request)
    if as_json:
        echo_json(format_message(response))
    else:
        echo_lines(render_state(stream, response, get_width()))


@click.command()
@click.argument("subject")
@options.as_of
@options.as_json
def explain(subject: str, as_of: AsOf | None, as_json: bool) -> None:
    """Explain in words what happened to SUBJECT, followed through sagas, and what it waits for.

    SUBJECT is the id of an aggregate, a stream, an event id (<stream>@<version>), or a request id.
    """
    request = (as_of or AsOf()).apply(ExplainRequest(subject=subject))
    with open_api() as api:
        explanations = api.call(api.stub.Explain, request).explanations
    for number, explanation in enumerate(explanations):
        if as_json:
            echo_json(format_message(explanation))
        else:
            space = [Line("")] if number else []
            echo_lines([*space, *render_explanation(explanation, get_width())])
