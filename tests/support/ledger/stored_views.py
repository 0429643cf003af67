"""Cheques as the projector stores them, written by hand."""

from typing import Any

from google.type.money_pb2 import Money

from contracts.view_layout import View, index_member
from tests.support.harness.read_model import Contribution, Entry, Projections
from tests.support.ledger.stubs import types

CHEQUE, HISTORY = View.of(types.Cheque), View.of(types.ChequeHistory)


def cheque(
    cheque_id: str,
    *,
    account: str = "a-1",
    state: int = types.Cheque.STATE_WRITTEN,
    version: int = 1,
    written: int = 0,
    units: int = 0,
) -> Any:
    """Return a cheque; `written` is in microseconds since 1970."""
    amount = Money(currency_code="EUR", units=units)
    view = types.Cheque(cheque_id=cheque_id, version=version, state=state, account_id=account, amount=amount)
    view.write_time.FromMicroseconds(written)
    return view


def index_entries(view: Any) -> list[Entry]:
    member = index_member(view.write_time.ToMicroseconds(), view.cheque_id)
    state = types.Cheque.State.Name(view.state)
    return [
        (CHEQUE.index("account", view.account_id), member),
        (CHEQUE.index("state", state), member),
        (CHEQUE.index("account_state", view.account_id, state), member),
        (CHEQUE.index("all"), member),
    ]


def contributions(view: Any) -> list[Contribution]:
    state = types.Cheque.State.Name(view.state)
    counters = {f"cheques/{state}": 1, f"cents/{state}/EUR": view.amount.units * 100}
    key = CHEQUE.counters("account", view.account_id)
    return [(key, counter, str(amount)) for counter, amount in counters.items() if amount]


CHEQUES = Projections(CHEQUE, HISTORY, "cheque_id", index_entries, contributions)
