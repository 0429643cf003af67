"""Snapshots are valid only for the code that produced them."""

import inspect
from types import ModuleType

import pytest

from command_server.kernel.context import AggregateType
from tests.support.ledger import events, rules
from tests.support.ledger.rules import cheque, messages, shares


def fingerprint() -> str:
    return AggregateType(cheque.CHEQUE, rules.CONTEXT).snapshots.fingerprint


@pytest.mark.parametrize("changed", [cheque, messages, shares, events], ids=lambda m: m.__name__)
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
