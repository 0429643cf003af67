"""A saga for the process manager's own tests: it cashes each cheque that is written, and gives up in time."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from process_manager.saga import (
    Abort,
    Answered,
    Heard,
    Next,
    Refused,
    Retry,
    Saga,
    Send,
    Standing,
    Timeout,
    Timer,
    Told,
)
from tests.support.builders.ledger import ledger_pb2

PATIENCE = timedelta(hours=1)


@dataclass(frozen=True)
class Collection:
    cheque_id: str = ""
    state: str = "NEW"
    why: str = ""
    written_at: datetime | None = None


def react(collection: Collection, told: Told) -> Next[Collection]:
    match told:
        case Heard(event) if event.DESCRIPTOR.name == "ChequeWritten":
            if event.amount == 13:
                raise RuntimeError("the saga's code is broken")
            began = Collection(event.cheque_id, "CASHING", written_at=told.at)
            return Next(began, [_cash(event.cheque_id)], [Timer("patience", told.at + PATIENCE)])
        case Answered(step="cash"):
            return Next(replace(collection, state="CASHED"), timers=[Timer("patience", None)])
        case Refused(step="cash", reason=reason) if collection.state == "CASHING":
            return Next(replace(collection, state="REFUSED", why=reason))
        case Retry() if collection.state == "REFUSED":
            return Next(replace(collection, state="CASHING", why=""), [_cash(collection.cheque_id)])
        case Timeout(timer="patience"):
            return Next(replace(collection, state="GIVEN_UP"))
        case Abort(reason=reason):
            return Next(replace(collection, state="GIVEN_UP", why=reason), timers=[Timer("patience", None)])
    return Next(collection)


def _cash(cheque_id: str) -> Send:
    return Send("cash", ledger_pb2.CashChequeRequest(cheque_id=cheque_id))


def standing(collection: Collection) -> Standing:
    trouble = collection.why if collection.state == "REFUSED" else ""
    return Standing(collection.state, collection.state in ("CASHED", "GIVEN_UP"), trouble=trouble)


COLLECTION: Saga[Any] = Saga(
    "ledger.collection", "ledger.cheque", (ledger_pb2,), Collection(), react, standing
)
