"""A proof that an event is on record is small, and holds outside of the system."""

from typing import Any

import pytest
from diptych.operations.v1.operations_service_pb2 import GetEventProofRequest
from diptych.operations.v1.proofs_pb2 import EventProof
from diptych_client import InvalidProof, verify_event_proof

from operations.audit.checkpoints import read_text
from operations_server.audit.proofs import EventProofs
from operations_server.records.database import Database
from runtime.grpc.rpc_error import RpcError
from tests.integration.audit.conftest import PUBLIC_KEYS, Ledger

A = "ledger.account.a"
HASH = b"\7" * 32
CHANGES: dict[str, Any] = {
    "stream": "ledger.account.b",
    "version": 3,
    "type": "acme.ledger.v1.Withdrawn",
    "metadata": '{"actor": "eve"}',
    "data": b"",
    "previous_digest": b"",
    "position": 4,
    "index": 0,
}


async def get_proof(ledger: Ledger, version: int, checkpoint: int = 0, stream: str = A) -> EventProof:
    database = Database(ledger.database_url)
    request = GetEventProofRequest(stream=stream, version=version, checkpoint=checkpoint)
    try:
        response = await EventProofs(database).get(request, None)  # type: ignore[arg-type]
    finally:
        await database.close()
    proof: EventProof = response.proof
    return proof


async def test_each_event_is_proved_under_each_later_checkpoint(sealed: Ledger) -> None:
    await sealed.record()
    await sealed.sealer.seal()
    ((versions,),) = await sealed.fetch(f"SELECT version FROM streams WHERE id = '{A}'")
    for version in range(1, versions + 1):
        proof = await get_proof(sealed, version)
        verify_event_proof(proof, PUBLIC_KEYS)
        assert proof.ByteSize() < 3_000
    kept = await read_text(sealed.database_url, 2)
    verify_event_proof(await get_proof(sealed, 2, checkpoint=2), PUBLIC_KEYS, kept)
    with pytest.raises(InvalidProof, match="does not end in the kept checkpoint"):
        verify_event_proof(await get_proof(sealed, 2, checkpoint=3), PUBLIC_KEYS, kept)


async def test_a_proof_of_anything_else_is_invalid(sealed: Ledger) -> None:
    proof = await get_proof(sealed, 2)
    changed = []
    for name, value in CHANGES.items():
        other = EventProof.FromString(proof.SerializeToString())
        setattr(other, name, value)
        changed.append(other)
    for name in ("path", "checkpoint_path"):
        for values in (list(getattr(proof, name))[:-1], [*getattr(proof, name), HASH], [HASH]):
            other = EventProof.FromString(proof.SerializeToString())
            other.ClearField(name)  # type: ignore[arg-type]
            getattr(other, name).extend(values)
            changed.append(other)
    for name, old, new in (
        ("entry", "number 1", "number 2"),
        ("entry", "segment events 0", "segment events 1"),
        ("checkpoint", "number 2", "number 3"),
        ("checkpoint", "root ", "root 00"),
        ("checkpoint", "key s", "key t"),
        ("checkpoint", "signature ", "signature AA"),
        ("checkpoint", "diptych", "another"),
    ):
        other = EventProof.FromString(proof.SerializeToString())
        assert old in getattr(other, name)
        setattr(other, name, getattr(other, name).replace(old, new))
        changed.append(other)
    later = EventProof.FromString(proof.SerializeToString())
    later.recorded_time.seconds += 1
    for other in (*changed, later, EventProof()):
        with pytest.raises(InvalidProof):
            verify_event_proof(other, PUBLIC_KEYS)
    with pytest.raises(InvalidProof, match="is not known"):
        verify_event_proof(proof, {"t": PUBLIC_KEYS["s"]})
    with pytest.raises(InvalidProof, match="signature"):
        verify_event_proof(proof, {"s": HASH})


async def test_an_event_of_an_earlier_release_is_proved_by_its_content(ledger: Ledger) -> None:
    await ledger.record()
    await ledger.execute_as_owner("UPDATE events SET digest = NULL WHERE version = 2")
    await ledger.sealer.seal()
    verify_event_proof(await get_proof(ledger, 2), PUBLIC_KEYS)


async def test_what_cannot_be_proved_has_its_reason(sealed: Ledger) -> None:
    await sealed.record()
    ((last,),) = await sealed.fetch(f"SELECT version FROM streams WHERE id = '{A}'")
    for reason, arguments in {
        "EVENT_NOT_FOUND": (last + 1, 0),
        "EVENT_NOT_SEALED": (last, 0),
        "CHECKPOINT_NOT_FOUND": (1, 9),
        "CHECKPOINT_TOO_EARLY": (last - 4, 1),
    }.items():
        with pytest.raises(RpcError) as caught:
            await get_proof(sealed, *arguments)
        assert caught.value.reason == reason
