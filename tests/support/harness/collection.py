"""A saga for the process manager's own tests: it cashes each cheque that is written, and gives up in time."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from process_manager.saga import (
    AbortRequested,
    EventReceived,
    Input,
    Reaction,
    RetryRequested,
    Saga,
    SagaStatus,
    Send,
    StepRejected,
    StepSucceeded,
    Timer,
    TimerFired,
)
from tests.support.builders.ledger import ledger_pb2

PATIENCE = timedelta(hours=1)


@dataclass(frozen=True)
class Collection:
    cheque_id: str = ""
    state: str = "NEW"
    why: str = ""
    written_at: datetime | None = None


def react(collection: Collection, received: Input) -> Reaction[Collection]:
    match received:
        case EventReceived(event) if event.DESCRIPTOR.name == "ChequeWritten":
            if event.amount == 13:
                raise RuntimeError("the saga's code is broken")
            began = Collection(event.cheque_id, "CASHING", written_at=received.at)
            return Reaction(began, [_cash(event.cheque_id)], [Timer("patience", received.at + PATIENCE)])
        case StepSucceeded(step="cash"):
            return Reaction(replace(collection, state="CASHED"), timers=[Timer("patience", None)])
        case StepRejected(step="cash", reason=reason) if collection.state == "CASHING":
            return Reaction(replace(collection, state="REFUSED", why=reason))
        case RetryRequested() if collection.state == "REFUSED":
            return Reaction(replace(collection, state="CASHING", why=""), [_cash(collection.cheque_id)])
        case TimerFired(timer="patience"):
            return Reaction(replace(collection, state="GIVEN_UP"))
        case AbortRequested(reason=reason):
            return Reaction(
                replace(collection, state="GIVEN_UP", why=reason), timers=[Timer("patience", None)]
            )
    return Reaction(collection)


def _cash(cheque_id: str) -> Send:
    return Send("cash", ledger_pb2.CashChequeRequest(cheque_id=cheque_id))


def status(collection: Collection) -> SagaStatus:
    blocked_reason = collection.why if collection.state == "REFUSED" else ""
    return SagaStatus(
        collection.state, collection.state in ("CASHED", "GIVEN_UP"), blocked_reason=blocked_reason
    )


COLLECTION: Saga[Any] = Saga("ledger.collection", "ledger.cheque", (ledger_pb2,), Collection(), react, status)
