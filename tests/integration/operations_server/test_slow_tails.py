"""A caller that does not read a tail costs the operations server a bounded amount of memory."""

from typing import Any

from diptych.operations.v1 import operations_service_pb2 as protocol

from bench.process_cost import read_memory
from devstack.stack import Stack
from operations.processes import OPERATIONS_SERVER
from tests.support.harness.caller import Caller
from tests.support.harness.waiting import until

EVENTS, SIZE = 600, 300_000
FILL = """
INSERT INTO events (stream, version, type, data, metadata, recorded_at)
SELECT 's.t.' || n, 1, 'a.Unknown', decode(repeat('61', $2::int), 'hex'), '{}', now()
FROM generate_series(1, $1::int) n
"""


async def test_a_slow_reader_of_a_tail_costs_bounded_memory(
    shared_stack: Stack, operator_of_shared: Caller, database: Any
) -> None:
    """180 MB wait for a caller that has taken one message, and lists are answered meanwhile.

    On other connections: h2corn holds large responses up behind a stream that is not read (ADR 43).
    """
    (server,) = shared_stack.of(OPERATIONS_SERVER)
    await database.execute(FILL, EVENTS, SIZE)
    list_first = protocol.ListEventsRequest(page_size=1)
    await operator_of_shared.query(list_first)
    before = read_memory(server.child.process.pid)
    reader = Caller(shared_stack, "operations.read", has_own_connections=True)
    tail = reader.watch(protocol.TailEventsRequest(after_position=0))
    positions = [event.position for event in (await anext(aiter(tail))).events]
    for _ in range(50):
        await operator_of_shared.query(list_first)
    grown = read_memory(server.child.process.pid) - before
    print(f"memory grew by {grown / 1e6:.0f} MB")
    assert grown < 90e6

    async def read_on() -> bool:
        positions.extend(event.position for event in (await anext(aiter(tail))).events)
        return len(positions) == EVENTS

    await until(read_on, 60)
    assert positions == list(range(1, EVENTS + 1))
    await reader.close()
