"""Dead letters: the events that projections and sagas cannot apply."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from diptych.operations.v1.operations_service_pb2 import (
    GetDeadLetterRequest,
    ListDeadLettersRequest,
    RetryDeadLettersRequest,
    SkipDeadLetterRequest,
)

from operations.cli_output import echo, echo_json, echo_lines, get_width
from operations.cli_types import Duration, Number, Reason, to_timestamp
from operations.client.api import open_api
from operations.commands import options
from operations.commands.listing import show_list
from operations.rendering.dead_letters import render_letter_details, render_letters, render_refused
from operations.rendering.json_lines import format_message, format_object, to_object
from operations.rendering.layout import Line
from operations.rendering.values import format_count
from runtime.process.start_error import StartError

DRY_RUN_SHOWN = 10
"""Dead letters that a dry run shows."""


@click.group("dead-letters")
def dead_letters() -> None:
    """List, show, retry and skip the events that projections and sagas cannot apply."""


_projection = click.option("--projection", default="", metavar="NAME", help="Only those of this projection.")
_saga = click.option("--saga", default="", metavar="NAME", help="Only those of this saga.")
_error = click.option(
    "--error", default="", metavar="TEXT", help="Only those whose error contains this text."
)
_older_than = click.option(
    "--older-than",
    type=Duration(),
    metavar="AGE",
    help="Only those that have waited longer, for instance 1h.",
)


@dead_letters.command("list")
@_projection
@_saga
@click.option("--id", "id_", default="", help="Only those of this aggregate or instance.")
@_error
@_older_than
@options.limit
@options.as_json
def list_(
    projection: str,
    saga: str,
    id_: str,
    error: str,
    older_than: timedelta | None,
    limit: int,
    as_json: bool,
) -> None:
    """List the dead letters of projections and sagas, the longest waiting first."""
    request = ListDeadLettersRequest(
        projection=projection, saga=saga, id=id_, error=error, since_before=_find_moment(older_than)
    )
    show_list("ListDeadLetters", request, limit, as_json, render_letters, "no dead letters")


@dead_letters.command()
@click.argument("id_", metavar="ID")
@_projection
@_saga
@options.content
@options.as_json
def show(id_: str, projection: str, saga: str, content: Any, as_json: bool) -> None:
    """Show the dead letters of an aggregate or instance of this ID, with their events."""
    request = GetDeadLetterRequest(projection=projection, saga=saga, id=id_, content=content)
    with open_api() as api:
        found = api.call(api.stub.GetDeadLetter, request).dead_letters
    for number, details in enumerate(found):
        if as_json:
            echo_json(format_message(details))
        else:
            echo_lines([*([Line("")] if number else []), *render_letter_details(details, get_width())])


@dead_letters.command()
@click.argument("id_", metavar="[ID]", default="")
@_projection
@_saga
@_error
@_older_than
@click.option("--all", "is_all", is_flag=True, help="All dead letters.")
@click.option("--dry-run", is_flag=True, help="Show how many would be tried again, and the first ten.")
@click.option("--reason", default="", help="Why; it is recorded. Needed unless it is a dry run.")
@options.as_json
def retry(
    id_: str,
    projection: str,
    saga: str,
    error: str,
    older_than: timedelta | None,
    is_all: bool,
    dry_run: bool,
    reason: str,
    as_json: bool,
) -> None:
    """Try dead letters again: those of ID, or those that options select, in slices of 100.

    The events of an aggregate are applied in their order, from the one that failed on. An event that fails
    again stays a dead letter.
    """
    if is_all == bool(id_ or projection or saga or error or older_than is not None):
        raise click.UsageError("name what to retry: an ID, options that select dead letters, or --all")
    values: dict[str, Any] = {"projection": projection, "saga": saga, "id": id_, "error": error}
    values["since_before"] = _find_moment(older_than)
    if dry_run:
        _show_dry_run(ListDeadLettersRequest(**values), as_json)
        return
    reason = Reason().convert(reason, None, None) if reason else ""
    if not reason:
        raise click.UsageError("--reason is missing: it is recorded with the act")
    retried, refused = 0, list[Any]()
    for response in _retry_slices(RetryDeadLettersRequest(**values, reason=reason)):
        retried += response.retried
        refused += response.refused
    if id_ and not retried and not refused:
        raise StartError(f"there is no dead letter of {id_}; it may have been applied meanwhile")
    if as_json:
        echo_json(format_object({"retried": retried, "refused": list(map(to_object, refused))}))
        return
    is_one = "is" if retried == 1 else "are"
    echo(f"{format_count(retried, 'dead letter')} {is_one} tried again within seconds")
    if refused:
        echo_lines(render_refused(refused, get_width()))


@dead_letters.command()
@click.argument("id_", metavar="ID")
@click.option("--projection", default="", metavar="NAME", help="The projection that steps over the event.")
@click.option("--saga", default="", metavar="NAME", help="The saga that steps over the event.")
@click.option("--version", type=Number(min=1), required=True, help="The version of the event.")
@click.option("--stream", default="", help="The stream, where a saga waits for several.")
@options.reason
@options.as_json
def skip(id_: str, projection: str, saga: str, version: int, stream: str, reason: str, as_json: bool) -> None:
    """Step over the event at which the aggregate or instance of this ID stands, for good.

    The event advances the version in the projection or saga that you name, and changes nothing else there, in
    every later build, too. It stays as it is for all others. This cannot be undone.
    """
    if bool(projection) == bool(saga):
        raise click.UsageError("name either a --projection or a --saga")
    request = SkipDeadLetterRequest(
        projection=projection, saga=saga, id=id_, version=version, stream=stream, reason=reason
    )
    with open_api() as api:
        letter = api.call(api.stub.SkipDeadLetter, request, is_act=True).dead_letter
    if as_json:
        echo_json(format_message(letter))
    else:
        echo(f"{projection or saga} steps over version {letter.version} of {letter.stream} within seconds")


def _retry_slices(request: Any) -> Iterator[Any]:
    with open_api() as api:
        while True:
            response = api.call(api.stub.RetryDeadLetters, request, is_act=True)
            yield response
            request.page_token = response.next_page_token
            if not request.page_token:
                return


def _show_dry_run(request: Any, as_json: bool) -> None:
    count, first = 0, list[Any]()
    with open_api() as api:
        for page in api.list_pages(api.stub.ListDeadLetters, request, 0):
            count += len(page.dead_letters)
            first += page.dead_letters[: DRY_RUN_SHOWN - len(first)]
    if as_json:
        echo_json(format_object({"count": count, "first": list(map(to_object, first))}))
        return
    echo(f"{format_count(count, 'dead letter')} would be tried again" + (", the first:" if first else ""))
    echo_lines(render_letters(first, get_width()))


def _find_moment(age: timedelta | None) -> Any:
    """Return the time before which what is older began; none is older than the first day there is."""
    try:
        return None if age is None else to_timestamp(datetime.now(UTC) - age)
    except OverflowError:
        return to_timestamp(datetime.min.replace(tzinfo=UTC))
