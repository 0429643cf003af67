"""Commands that read the stores themselves, until the operations server answers what they ask."""

import asyncio
from datetime import timedelta

import click

from operations.cli_output import echo
from operations.cli_parts import read_settings
from operations.cli_types import Duration, Reason


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

    settings = read_settings()
    view = projections.find_view(settings, name)
    seconds = asyncio.run(projections.rebuild(settings, view, within.total_seconds()))
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


@click.group()
def sagas() -> None:
    """List, show, retry and abort sagas; name the scopes that they need, and their caller."""


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
@click.option("--limit", default=50, show_default=True, help="The maximum number of each kind.")
def list_(kind: str, state: str, ended: bool, limit: int) -> None:
    """List sagas that have not ended, overdue ones first."""
    from operations import sagas

    echo(asyncio.run(sagas.list_sagas(read_settings(), kind, state.upper(), ended or bool(state), limit)))


@sagas.command()
@click.argument("saga_id")
@_kind
def show(saga_id: str, kind: str) -> None:
    """Show the status, steps and timers of all sagas of SAGA_ID, for instance an order's id."""
    from operations import sagas

    echo(asyncio.run(sagas.show_sagas(read_settings(), saga_id, kind)))


@sagas.command()
@click.argument("saga_id")
@_kind
def retry(saga_id: str, kind: str) -> None:
    """Repeat the step or input at which a saga is blocked."""
    from operations import sagas

    echo(asyncio.run(sagas.retry(read_settings(), saga_id, kind)))


@sagas.command()
@click.argument("saga_id")
@_kind
@click.option(
    "--reason", required=True, type=Reason(), help="The reason; it is recorded, and callers see it."
)
def abort(saga_id: str, kind: str, reason: str) -> None:
    """End a saga, undoing every step that can be undone."""
    from operations import sagas

    echo(asyncio.run(sagas.abort(read_settings(), saga_id, kind, reason)))


@sagas.command()
def scopes() -> None:
    """Print the scopes that the process manager's access token needs, a line each."""
    from operations import sagas
    from process_manager.scopes import required_scopes

    echo("\n".join(required_scopes(sagas.load_sagas(read_settings()))))


@sagas.command()
def callers() -> None:
    """Print the recorded caller of each saga: the subject of the process manager's token."""
    from operations import saga_callers

    echo(saga_callers.describe_callers(asyncio.run(saga_callers.read_callers(read_settings()))))


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


@click.command()
@click.argument("stream")
def events(stream: str) -> None:
    """Print the events of STREAM as JSON.

    STREAM is <context>.<aggregate>.<id>, for instance ordering.order.o-1.
    """
    from operations import events

    async def show() -> None:
        async for line in events.decode_stream(settings, stream):
            echo(line)

    settings = read_settings()
    asyncio.run(show())


@click.command()
@click.option("--since", type=Duration(), default="1h", show_default=True, help="The time until now.")
@click.option("--limit", default=50, show_default=True, help="The maximum number of lines.")
def refused(since: timedelta, limit: int) -> None:
    """List the calls that were refused: unauthenticated, denied or invalid ones, the most frequent first."""
    from operations import refused_calls

    echo(asyncio.run(refused_calls.list_refused_calls(read_settings(), since, limit)))
