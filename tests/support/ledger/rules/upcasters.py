"""Upcasters of the ledger's requests, applied before a request becomes a command."""

from typing import Any

from contracts.upcasters import Upcaster
from tests.support.ledger.stubs import commands as v1
from tests.support.ledger.stubs import commands_v2 as v2


def upcast_write_cheque(request: Any) -> Any:
    return v2.WriteChequeRequest(
        request_id=request.request_id,
        cheque_id=request.cheque_id,
        account_id=request.account_id,
        amount=request.amount,
        currency_code="EUR",
    )


REQUEST_UPCASTERS = (Upcaster(v1.WriteChequeRequest, v2.WriteChequeRequest, upcast_write_cheque),)
