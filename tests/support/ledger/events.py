"""The ledger's events in all versions. A cheque of version 1 is in euros."""

from typing import Any

from contracts.event_types import EventTypes
from contracts.upcasters import Upcaster
from tests.support.ledger.stubs import events as v1
from tests.support.ledger.stubs import events_v2 as v2


def upcast_cheque_written(event: Any) -> Any:
    return v2.ChequeWritten(
        cheque_id=event.cheque_id,
        account_id=event.account_id,
        amount=event.amount,
        writer=event.writer,
        written_at=event.written_at,
        currency_code="EUR",
    )


CHEQUE_WRITTEN = Upcaster(v1.ChequeWritten, v2.ChequeWritten, upcast_cheque_written)
EVENTS = EventTypes((v1, v2), upcasters=(CHEQUE_WRITTEN,))
