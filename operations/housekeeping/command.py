"""`diptych housekeeping`: one round, or a round at each interval, by one process at a time.

How it works. The holder of a lease row in PostgreSQL works, as with the relay's; two rounds at once would do
no harm, only work twice. A round takes one kind after the other, in batches that commit by themselves, so an
end at any moment loses at most the running batch, and the next round continues. A kind that cannot be done,
because its server is unreachable for instance, does not stop the others.
"""

import asyncio
import signal
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial

from operations.housekeeping import (
    histories,
    months,
    operator_acts,
    request_index,
    requests,
    sagas,
    stream,
    views,
)
from operations.housekeeping.database import Database
from operations.housekeeping.kinds import Entry, Kind, describe
from operations.server_errors import UNREACHABLE, summarize
from runtime.database_user import refuse_privileged_user
from runtime.leader_lease import Lease, LeaseLost
from runtime.process.settings import Settings
from runtime.process.start_error import InvalidSetting, StartError

EXIT_INCOMPLETE = 1
"""The exit code of a round in which a kind could not be done."""
RETRY_INTERVAL = timedelta(minutes=1)
"""The interval after a round in which a kind could not be done, if it is shorter than that of the rounds."""

Report = Callable[[Entry], None]


def list_kinds(settings: Settings, database: Database, unexported: bool) -> list[Kind]:
    """Return every kind that housekeeping bounds, in the order of a round."""
    return [
        Kind("requests", "answers", settings.keep_requests, partial(requests.remove, database)),
        Kind("audit", "rows", settings.keep_audit, partial(months.maintain, database, "audit", unexported)),
        Kind(
            "request_index",
            "segments",
            settings.keep_audit,
            partial(request_index.remove, database, unexported),
        ),
        Kind(
            "refused_calls",
            "rows",
            settings.keep_refused_calls,
            partial(months.maintain, database, "refused_calls", unexported),
        ),
        Kind("reads", "rows", settings.keep_reads, partial(months.maintain, database, "reads", unexported)),
        Kind(
            "operator_acts", "acts", settings.keep_audit, partial(operator_acts.remove, database, unexported)
        ),
        Kind("stream", "messages", settings.keep_stream, partial(stream.remove, settings, database)),
        Kind("sagas", "sagas' steps", settings.keep_sagas, partial(sagas.archive, database)),
        Kind("views", "views", settings.keep_views, partial(views.archive, settings, database), "archive"),
        Kind("history", "entries", settings.keep_history, partial(histories.trim, settings, database)),
    ]


def run(
    settings: Settings, every: timedelta | None, dry_run: bool, report: Report, *, unexported: bool = False
) -> int:
    """Run until the round is done, or with `every` until SIGTERM; return the exit code."""
    return asyncio.run(_run_until_stopped(settings, every, dry_run, report, unexported))


async def _run_until_stopped(
    settings: Settings, every: timedelta | None, dry_run: bool, report: Report, unexported: bool
) -> int:
    """Cancel the work on SIGTERM or SIGINT: the running batch is rolled back, those before it stay."""
    work = asyncio.ensure_future(keep_house(settings, every, dry_run, report, unexported=unexported))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        report(Entry("stopped; the next round continues", {"stopped": True}))
        return 0


async def keep_house(
    settings: Settings, every: timedelta | None, dry_run: bool, report: Report, *, unexported: bool = False
) -> int:
    """Do one round, or one at each interval.

    Raises:
        InvalidSetting: the user of the database URL has too many rights.
        StartError: another process does the housekeeping, and there is no interval to wait for.
        UNREACHABLE: PostgreSQL does not answer, and there is no interval to wait for.
    """
    database = Database(settings.database_url)
    lease = Lease(database.engine, lambda: True, table="housekeeping")
    kinds = list_kinds(settings, database, unexported)
    try:
        while True:
            try:
                await refuse_privileged_user(database.engine, allowed=settings.allow_privileged_database_user)
                complete = await _do_leased_round(lease, kinds, dry_run, report)
            except (StartError, *UNREACHABLE) as error:
                if every is None or isinstance(error, InvalidSetting):
                    raise
                report(Entry(f"no round: {summarize(error)}", {"error": summarize(error)}))
                complete = False
            if every is None:
                return 0 if complete else EXIT_INCOMPLETE
            pause = every if complete else min(every, RETRY_INTERVAL)
            await asyncio.sleep(pause.total_seconds())
    finally:
        await lease.release()
        await database.close()


async def _do_leased_round(lease: Lease, kinds: Sequence[Kind], dry_run: bool, report: Report) -> bool:
    """Take all kinds in turn while the lease is renewed; return whether each was done.

    Raises:
        StartError: another process has the lease, or has taken it over.
    """
    if not await lease.acquire():
        raise StartError("housekeeping: another process does it at the moment")
    try:
        async with asyncio.TaskGroup() as group:
            renewal = group.create_task(lease.renew_until_lost())
            complete = await _do_round(kinds, dry_run, report)
            renewal.cancel()
    except ExceptionGroup as group_error:
        lost, others = group_error.split((LeaseLost, *UNREACHABLE))
        if others is not None or lost is None:
            raise
        raise StartError(
            f"housekeeping: stopped, the lease is lost: {summarize(lost.exceptions[0])}"
        ) from lost
    await lease.release()
    return complete


async def _do_round(kinds: Sequence[Kind], dry_run: bool, report: Report) -> bool:
    complete = True
    for kind in kinds:
        try:
            report(describe(kind, await kind.remove(kind.retention, dry_run), dry_run))
        except (StartError, *UNREACHABLE) as error:
            cause = summarize(error)
            report(Entry(f"{kind.name:14}  not done: {cause}", {"kind": kind.name, "error": cause}))
            complete = False
    return complete
