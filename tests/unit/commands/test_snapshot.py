"""Snapshots are valid only for the code that produced them."""

import inspect
from types import ModuleType

import pytest

from command_server.contexts import ordering
from command_server.contexts.ordering.domain import contents, messages, order
from command_server.kernel import money
from command_server.kernel.context import AggregateType
from contracts.events import ordering as upcasters


def fingerprint() -> str:
    return AggregateType(order.ORDER, ordering.CONTEXT).snapshots.fingerprint


@pytest.mark.parametrize("changed", [order, contents, messages, money, upcasters], ids=lambda m: m.__name__)
def test_a_change_in_any_folding_module_changes_the_fingerprint(
    changed: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, source = fingerprint(), inspect.getsource
    monkeypatch.setattr(
        inspect, "getsource", lambda module: source(module) + "# changed" * (module is changed)
    )
    assert fingerprint() != before


def test_the_same_code_has_the_same_fingerprint() -> None:
    assert fingerprint() == fingerprint()
