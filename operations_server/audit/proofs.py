"""`GetEventProof`: what proves to somebody outside that an event is on record."""

import asyncio
from collections.abc import Mapping
from typing import Any

from diptych.operations.v1 import operations_service_pb2 as protocol
from diptych.operations.v1.proofs_pb2 import EventProof

from contracts.audit.checkpoint import join_text
from contracts.audit.merkle import compute_path, join_subtrees, list_path
from operations_server.records.database import Database, Driver, report_failures
from runtime.audit.records import EVENTS
from runtime.audit.subtrees import read_subtrees
from runtime.grpc.method import Context, Handler
from runtime.grpc.rpc_error import RpcError

# The event before it is the last one with a digest: those of earlier releases have none.
READ_EVENT = """
SELECT e.position, e.type, e.recorded_at, e.metadata::text AS metadata, e.data, (
  SELECT p.digest FROM events p
  WHERE p.stream = e.stream AND p.version < e.version AND p.digest IS NOT NULL AND e.digest IS NOT NULL
  ORDER BY p.version DESC LIMIT 1
) AS previous
FROM events e WHERE e.stream = $1 AND e.version = $2
"""
FIND_SEGMENT = """
SELECT after, until, checkpoint FROM audit_segments WHERE record = 'events' AND until >= $1
ORDER BY until LIMIT 1
"""
READ_CHECKPOINT = """
SELECT number, entry, root, key_id, signature FROM audit_checkpoints
WHERE $1 = 0 OR number = $1 ORDER BY number DESC LIMIT 1
"""


class EventProofs:
    """Makes proofs.

    Args:
        database: its connections.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, request: protocol.GetEventProofRequest, _context: Context) -> Any:
        """Return the proof of an event.

        Raises:
            RpcError: `EVENT_NOT_FOUND`, `EVENT_NOT_SEALED`, `CHECKPOINT_NOT_FOUND`, `CHECKPOINT_TOO_EARLY`.
        """
        async with self._database.connect() as driver:
            proof, number = await _prove_row(driver, request.stream, request.version)
            own, later = (
                await _read_checkpoint(driver, number),
                await _read_checkpoint(driver, request.checkpoint),
            )
            if later["number"] < number:
                metadata = {"checkpoint": str(later["number"]), "needed": str(number)}
                raise RpcError.of_rule("operations", "CHECKPOINT_TOO_EARLY", metadata)
            parts = list(list_path(number - 1, later["number"]))
            roots = await read_subtrees(driver, [subtree for part in parts for subtree in part])
        proof.entry = own["entry"]
        proof.checkpoint = join_text(later["entry"], later["root"], later["key_id"], later["signature"])
        proof.checkpoint_path.extend(join_subtrees([roots[each] for each in part]) for part in parts)
        return protocol.GetEventProofResponse(proof=proof)


async def _prove_row(driver: Driver, stream: str, version: int) -> tuple[EventProof, int]:
    """Return the part of a proof up to the root of the event's segment, and the number of its checkpoint."""
    event = await driver.fetchrow(READ_EVENT, stream, version)
    name = {"event": f"{stream}@{version}"}
    if event is None:
        raise RpcError.not_found("operations", "EVENT_NOT_FOUND", name)
    segment = await driver.fetchrow(FIND_SEGMENT, event["position"])
    if segment is None:
        raise RpcError.of_rule("operations", "EVENT_NOT_SEALED", name)
    rows = await driver.fetch(EVENTS.select(), segment["after"], segment["until"], None)
    index = [row["key"] for row in rows].index(event["position"])
    proof = EventProof(
        stream=stream,
        version=version,
        type=event["type"],
        metadata=event["metadata"],
        data=event["data"],
        previous_digest=event["previous"],
        position=event["position"],
        index=index,
        path=await asyncio.to_thread(
            lambda: compute_path([EVENTS.build_row(tuple(row)).leaf for row in rows], index)
        ),
    )
    proof.recorded_time.FromDatetime(event["recorded_at"])
    return proof, segment["checkpoint"]


async def _read_checkpoint(driver: Driver, number: int) -> Mapping[str, Any]:
    """Return a checkpoint; 0 is the last one."""
    row: Mapping[str, Any] | None = await driver.fetchrow(READ_CHECKPOINT, number)
    if row is None:
        raise RpcError.not_found("operations", "CHECKPOINT_NOT_FOUND", {"checkpoint": str(number)})
    return row


def create_handlers(proofs: EventProofs) -> Mapping[str, Handler]:
    """Return the handlers by method."""
    return {"GetEventProof": report_failures(proofs.get)}
