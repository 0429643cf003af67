"""When a stored state is trusted: only while all code that made it is the same."""

import inspect
from types import ModuleType

import pytest

from command_server.contexts import ordering
from command_server.contexts.ordering.domain import contents, messages, order
from command_server.kernel import money
from command_server.kernel.context import AggregateType
from contracts.upcasters import ordering as upcasters


def fingerprint() -> str:
    return AggregateType(order.ORDER, ordering.CONTEXT).snapshots.fingerprint


@pytest.mark.parametrize("changed", [order, contents, messages, money, upcasters], ids=lambda m: m.__name__)
def test_code_that_folds_differently_trusts_no_state_from_before(
    changed: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, source = fingerprint(), inspect.getsource
    monkeypatch.setattr(
        inspect, "getsource", lambda module: source(module) + "# changed" * (module is changed)
    )
    assert fingerprint() != before


def test_the_same_code_trusts_the_states_that_it_made() -> None:
    assert fingerprint() == fingerprint()
