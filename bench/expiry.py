"""`make bench-expiry`: how long after its deadline a held seat is back in the view that buyers watch.

Each buyer holds one seat of a show, with a deadline of its own. The process manager lets the holds expire,
and `WatchAvailability` tells how many seats are free. The seats are back in the order of their deadlines, or
nearly so: the time at which n are free is compared with the nth deadline.
"""

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from typing import Any
from uuid import uuid4

import grpc
import uvloop
from diptych.ticketing.v1 import command_service_pb2 as commands
from diptych.ticketing.v1 import query_service_pb2 as queries
from diptych.ticketing.v1.command_service_pb2_grpc import CommandServiceStub
from diptych.ticketing.v1.query_service_pb2_grpc import QueryServiceStub
from diptych.ticketing.v1.types_pb2 import LocalTime, Row, Section
from google.type.money_pb2 import Money

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from runtime.process import logs

SEATS = 500
FIRST, INTERVAL = timedelta(seconds=10), timedelta(milliseconds=20)
"""From the first hold to the first deadline, and from each deadline to the next."""


async def measure(stack: Stack) -> list[float]:
    """Return the seconds from each deadline until its seat was back.

    Raises:
        RuntimeError: the holds took longer than until the first deadline.
    """
    token = stack.token("ticketing.write", "ticketing.buy", "ticketing.read", "ticketing.all")
    metadata = (("authorization", f"Bearer {token}"),)
    async with (
        grpc.aio.insecure_channel(stack.settings.command_address) as write,
        grpc.aio.insecure_channel(stack.settings.query_address) as read,
    ):
        command_stub: Any = CommandServiceStub(write)
        query_stub: Any = QueryServiceStub(read)
        show_id = uuid4().hex
        rows = [Row(label=str(number), seats=50) for number in range(SEATS // 50)]
        price = Money(currency_code="EUR", units=20)
        show = commands.ScheduleShowRequest(
            request_id=str(uuid4()),
            show_id=show_id,
            title="Hamlet",
            venue="Globe",
            place_id="london",
            doors=LocalTime(year=2999, month=7, day=1, hour=20, time_zone="Europe/London"),
            sections=[Section(section_id="stalls", price=price, rows=rows)],
            seats_per_buyer=4,
        )
        scheduled = (await command_stub.ScheduleShow(show, metadata=metadata)).receipt
        first = datetime.now(UTC) + FIRST
        deadlines = [first + number * INTERVAL for number in range(SEATS)]

        async def hold(deadline: datetime) -> None:
            request = commands.HoldSeatsRequest(
                request_id=str(uuid4()),
                booking_id=uuid4().hex,
                show_id=show_id,
                section_id="stalls",
                buyer_id=uuid4().hex,
                count=1,
            )
            request.deadline.FromDatetime(deadline)
            await command_stub.HoldSeats(request, metadata=metadata)

        for start in range(0, SEATS, 50):
            await asyncio.gather(*map(hold, deadlines[start : start + 50]))
        if datetime.now(UTC) > first:
            raise RuntimeError("the holds took longer than until the first deadline")
        watch = query_stub.WatchAvailability(
            queries.WatchAvailabilityRequest(show_id=show_id, at_least_as_fresh=scheduled.consistency_token),
            metadata=metadata,
        )
        delays: list[float] = []
        has_sold_out = False
        async for response in watch:
            now, free = time(), response.availability.sections[0].available
            has_sold_out = has_sold_out or not free
            if has_sold_out:
                delays += [now - deadline.timestamp() for deadline in deadlines[len(delays) : free]]
            if len(delays) == SEATS:
                break
        return delays


async def main() -> None:
    with TemporaryDirectory(prefix="diptych-bench-") as folder:
        async with temporary_stack(Path(folder), process_managers=1) as stack:
            delays = sorted(await measure(stack))
    times = ", ".join(
        f"{name} {1e3 * delays[int(part * (SEATS - 1))]:.0f} ms"
        for name, part in (("p50", 0.5), ("p99", 0.99), ("most", 1.0))
    )
    print(f"{SEATS} seats back after their deadlines, {1 / INTERVAL.total_seconds():.0f}/s: {times}")


if __name__ == "__main__":
    logs.configure("warning", "console")
    sys.exit(uvloop.run(main()))
