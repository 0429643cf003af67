"""The `diptych` command line. A failure is one line on stderr and exit code 1, or 2 for a setting.

Commands import their modules when they run, so that each starts as fast as it can.
"""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

import click

from contracts.key_ring import ALGORITHMS, KeyState, Purpose
from operations.cli_parts import CommandGroup, Duration, Reason, echo, read_settings


@click.group(cls=CommandGroup)
@click.version_option(package_name="diptych", message="%(prog)s %(version)s")
def main() -> None:
    """Operate Diptych. The DIPTYCH_* variables name the servers."""


@main.command()
def migrate() -> None:
    """Bring the database to the newest revision."""
    from operations.migrate import migrate

    asyncio.run(migrate(read_settings().database_url))
    echo("the database is at the newest revision")


@main.command()
def status() -> None:
    """Show the state of processes, outbox, stream and projections."""
    from operations import status

    echo(asyncio.run(status.render(read_settings())))


@main.group()
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


@main.group()
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

    echo(asyncio.run(saga_callers.show_callers(read_settings())))


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


@main.command()
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


@main.command()
@click.option(
    "--within",
    type=Duration(),
    default="60s",
    show_default=True,
    help="How long to wait for data that is behind.",
)
@click.option("--findings", default=20, show_default=True, help="How many findings of each check to show.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify(within: timedelta, findings: int, as_json: bool) -> None:
    """Compare all derived data with an independent fold of the events.

    Exit code 0: no difference. 1: differences. 2: the comparison was not possible.
    """
    from operations.verify import command

    sys.exit(command.run(read_settings(), within.total_seconds(), findings, as_json))


@main.group()
def keys() -> None:
    """List, check and rotate the keys of the key ring (DIPTYCH_KEYS)."""


@keys.command("list")
def list_keys() -> None:
    """List the keys, without their secrets."""
    from operations import keys

    echo(keys.list_keys(Path(read_settings().keys)))


@keys.command("check")
def check_keys() -> None:
    """Check the file as the processes do. Exit code 2: they refuse it."""
    from operations import keys

    echo(keys.check(Path(read_settings().keys)))


@keys.command("new")
@click.option(
    "--purpose",
    type=click.Choice([purpose.value for purpose in Purpose]),
    required=True,
    help="What the key signs.",
)
@click.option(
    "--algorithm", type=click.Choice(list(ALGORITHMS)), default=next(iter(ALGORITHMS)), show_default=True
)
@click.option(
    "--after",
    type=Duration(),
    default="60s",
    show_default=True,
    help="How long until it signs; every process has to read the file within it.",
)
def new_key(purpose: str, algorithm: str, after: timedelta) -> None:
    """Add a key with a random secret, and print its id. The file is created if need be."""
    from operations import keys

    echo(keys.create(Path(read_settings().keys), purpose, algorithm, after))


@keys.command("set")
@click.argument("key_id")
@click.argument("state", type=click.Choice([state.value for state in KeyState]))
def set_key_state(key_id: str, state: str) -> None:
    """Change the state of KEY_ID: active, verify-only (signs no more) or revoked (its tokens are refused)."""
    from operations import keys

    keys.set_state(Path(read_settings().keys), key_id, state)
    echo(f"{key_id} is {state}")


@main.command()
@click.option("--every", type=Duration(), help="Run on, with a round at this interval, for instance 1h.")
@click.option("--dry-run", is_flag=True, help="Count what would be removed, and change nothing.")
def housekeeping(every: timedelta | None, dry_run: bool) -> None:
    """Remove what its retention no longer keeps (the settings DIPTYCH_KEEP_*), and make partitions ahead.

    Exit code 1: something could not be done.
    """
    from operations.housekeeping import command

    if every == timedelta(0):
        raise click.BadParameter("an interval is at least 1s", param_hint="--every")
    sys.exit(command.run(read_settings(), every, dry_run, echo))


@main.command()
@click.option("--since", type=Duration(), default="1h", show_default=True, help="The time until now.")
@click.option("--limit", default=50, show_default=True, help="The maximum number of lines.")
def refused(since: timedelta, limit: int) -> None:
    """List the calls that were refused: unauthenticated, denied or invalid ones, the most frequent first."""
    from operations import refused_calls

    echo(asyncio.run(refused_calls.list_refused_calls(read_settings(), since, limit)))


@main.command()
def restored() -> None:
    """Give the database a new incarnation after it was restored from a backup or failed over with loss."""
    from operations import incarnation

    old, new = asyncio.run(incarnation.replace_incarnation(read_settings().database_url))
    echo(f"old incarnation  {old}\nnew incarnation  {new}\n{incarnation.NEXT_STEPS}")


@main.command()
@click.argument("name")
@click.argument("aggregate")
def new(name: str, aggregate: str) -> None:
    """Write a repository for a context NAME with one AGGREGATE, for instance loyalty member.

    It goes into the folder NAME.
    """
    from operations.new_context import repository

    echo(repository.create(name, aggregate))


@main.command()
@click.argument("protos", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
def generate(protos: Path, out: Path) -> None:
    """Generate Python stubs from the folder PROTOS into the source root OUT."""
    from operations.generate import generate

    files = generate(protos, out)
    echo(f"generated the stubs of {len(files)} protos")


if __name__ == "__main__":
    main()
