"""Sagas: the operations server lists, shows, retries and aborts them; their callers are read directly."""

import asyncio
from datetime import datetime
from typing import Any

import click
from diptych.operations.v1.operations_service_pb2 import (
    AbortSagaRequest,
    GetSagaRequest,
    ListSagasRequest,
    RetrySagaRequest,
)

from operations.cli_output import echo, echo_json, echo_lines, get_width
from operations.cli_parts import read_settings
from operations.cli_types import Moment, to_timestamp
from operations.client.api import open_api
from operations.commands import options
from operations.commands.listing import show_list
from operations.rendering.json_lines import format_message, format_object
from operations.rendering.layout import Line, lay_out_text
from operations.rendering.sagas import render_instance, render_saga, render_sagas


@click.group()
def sagas() -> None:
    """List, show, retry and abort sagas; show their feeds, scopes and callers."""


_kind = click.option(
    "--saga",
    "kind",
    default="",
    metavar="NAME",
    help="The name of a saga, for instance fulfilment.fulfilment.",
)


@sagas.command("list")
@_kind
@click.option("--state", default="", help="Only sagas in this state, for instance UNWINDING.")
@click.option("--ended", is_flag=True, help="Include sagas that have ended.")
@click.option("--blocked", is_flag=True, help="Only those that need an operator.")
@click.option("--overdue", is_flag=True, help="Only those whose due time has passed.")
@click.option("--error", default="", metavar="TEXT", help="Only those whose error contains this text.")
@click.option("--term", default="", metavar="ID", help="Only those about this customer, product, ...")
@click.option("--began-before", type=Moment(), help="Only those that began before this time.")
@options.limit
@options.as_json
def list_(
    kind: str,
    state: str,
    ended: bool,
    blocked: bool,
    overdue: bool,
    error: str,
    term: str,
    began_before: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """List sagas that have not ended, overdue ones first. With --state, ended ones are included."""
    request = ListSagasRequest(
        saga=kind,
        state=state.upper(),
        open_only=not (ended or state),
        blocked_only=blocked,
        overdue_only=overdue,
        error=error,
        term=term,
        began_before=to_timestamp(began_before),
    )
    nothing = "no sagas" if ended or state else "no open sagas"
    show_list("ListSagas", request, limit, as_json, render_sagas, nothing)


@sagas.command()
@click.argument("saga_id")
@_kind
@options.as_json
def show(saga_id: str, kind: str, as_json: bool) -> None:
    """Show the status, steps and timers of all sagas of SAGA_ID, for instance an order's id."""
    with open_api() as api:
        found = api.call(api.stub.GetSaga, GetSagaRequest(saga=kind, id=saga_id)).sagas
    for number, saga in enumerate(found):
        if as_json:
            echo_json(format_message(saga))
        else:
            echo_lines([*([Line("")] if number else []), *render_saga(saga, get_width())])


@sagas.command()
@click.argument("saga_id")
@_kind
@options.reason
@options.as_json
def retry(saga_id: str, kind: str, reason: str, as_json: bool) -> None:
    """Repeat the step or input at which a saga is blocked."""
    _act("RetrySaga", RetrySagaRequest(saga=kind, id=saga_id, reason=reason), as_json)


@sagas.command()
@click.argument("saga_id")
@_kind
@options.reason
@options.as_json
def abort(saga_id: str, kind: str, reason: str, as_json: bool) -> None:
    """End a saga, undoing every step that can be undone. Callers see the reason."""
    _act("AbortSaga", AbortSagaRequest(saga=kind, id=saga_id, reason=reason), as_json)


def _act(method: str, request: Any, as_json: bool) -> None:
    """Call a method that acts on a saga, and show the saga afterwards."""
    with open_api() as api:
        saga = api.call(getattr(api.stub, method), request, is_act=True).saga
    if as_json:
        echo_json(format_message(saga))
    else:
        echo_lines(list(render_instance(saga, get_width())))


@sagas.command()
@options.as_json
def feeds(as_json: bool) -> None:
    """Show the streams that are parked for sagas, the beginnings of sagas, and the deadlines to come."""
    from operations.saga_feeds import describe_fact, read_feeds

    facts = asyncio.run(read_feeds(read_settings()))
    for fact in facts if as_json else ():
        echo_json(format_object(fact))
    if not as_json:
        width = get_width()
        lines = [line for fact in facts for line in lay_out_text(describe_fact(fact), width)]
        echo_lines(lines or [Line("nothing is parked, and no deadline is to come")])


@sagas.command()
@options.as_json
def scopes(as_json: bool) -> None:
    """Print the scopes that the process manager's access token needs, a line each."""
    from operations.saga_feeds import load_sagas
    from process_manager.scopes import required_scopes

    names = required_scopes(load_sagas(read_settings()))
    echo("\n".join(map(format_object, names) if as_json else names))


@sagas.command()
@options.as_json
def callers(as_json: bool) -> None:
    """Print the recorded caller of each saga: the subject of the process manager's token."""
    from operations import saga_callers

    records = asyncio.run(saga_callers.read_callers(read_settings()))
    if as_json:
        for record in records:
            echo_json(format_object(record._asdict()))
    else:
        echo(saga_callers.describe_callers(records))


@sagas.command("change-caller")
@click.argument("subject")
@_kind
@click.option(
    "--repeat-unanswered",
    is_flag=True,
    help="Change it although steps are unanswered: they are sent again under the new subject. Safe if their "
    "targets know each repetition by an id of their own, as those of Diptych's contexts do.",
)
def change_caller(subject: str, kind: str, repeat_unanswered: bool) -> None:
    """Let process managers start with a token of SUBJECT. Stop them first."""
    from operations import saga_callers

    change = saga_callers.change_caller(read_settings(), subject, kind, repeat_unanswered=repeat_unanswered)
    echo(asyncio.run(change))
