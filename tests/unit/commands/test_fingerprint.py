"""A fingerprint changes with the fold and with nothing else, and is the same in all processes."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from command_server.contexts import banking, inventory, ordering
from command_server.kernel.context import AggregateType, aggregate_types
from command_server.kernel.decider import Aggregate
from command_server.kernel.fingerprint import compute_fingerprint
from command_server.kernel.snapshot import SnapshotCodec
from tests.support.builders.folding_rules import CHANGING, HELPERS, KEEPING, RULES
from tests.support.builders.requests import AGGREGATES
from tests.support.ledger import rules
from tests.support.ledger.rules import account, cheque

Compute = Callable[..., str]


@pytest.fixture
def compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compute:
    """Return the function that writes and imports rules, and returns their fingerprint."""

    def load(name: str, source: str) -> ModuleType:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    def compute(source: str = RULES, helpers: str = HELPERS) -> str:
        load("folding_helpers", helpers)
        module = load("folding_rules", source)
        events = (module.Added, module.Closed)
        return compute_fingerprint(module.evolve, module.State(), events)

    return compute


def edit(source: str, old: str, new: str) -> str:
    assert source.count(old) == 1, old
    return source.replace(old, new)


@pytest.mark.parametrize("name", KEEPING)
def test_what_is_no_part_of_the_fold_keeps_it(compute: Compute, name: str) -> None:
    assert compute(edit(RULES, *KEEPING[name])) == compute()


@pytest.mark.parametrize("name", CHANGING)
def test_what_is_part_of_the_fold_changes_it(compute: Compute, name: str) -> None:
    assert compute(edit(RULES, *CHANGING[name])) != compute()


def test_other_modules_count_as_far_as_they_are_used(compute: Compute) -> None:
    before = compute()
    assert compute(helpers=edit(HELPERS, "STEP = 5", "STEP = 6")) != before
    assert compute(helpers=edit(HELPERS, "return amount\n", "return amount + 1\n")) == before


def test_an_explicit_version_takes_its_place() -> None:
    def identify(version: str, initial: object = None) -> str:
        state = initial or account.Account()
        return SnapshotCodec(Aggregate("a.b", state, account.evolve, (), version)).fingerprint

    assert identify("1") == identify("1", cheque.Cheque())
    assert identify("1") != identify("2")


def test_upcasters_of_the_aggregates_own_events_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def identify() -> list[str]:
        types = [AggregateType(each, rules.CONTEXT) for each in (cheque.CHEQUE, account.ACCOUNT)]
        return [each.snapshots.fingerprint for each in types]

    cheque_before, account_before = identify()
    monkeypatch.setattr(rules.CONTEXT.events, "upcasters", ())
    cheque_after, account_after = identify()
    assert (cheque_after == cheque_before, account_after == account_before) == (False, True)


def list_fingerprints() -> list[str]:
    contexts = (banking.CONTEXT, inventory.CONTEXT, ordering.CONTEXT)
    types = {**AGGREGATES, **aggregate_types(contexts)}
    return [f"{name}={each.snapshots.fingerprint}" for name, each in types.items()]


def test_every_process_computes_the_same() -> None:
    code = f"from {__name__} import list_fingerprints; print(*list_fingerprints())"
    output = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert output.split() == list_fingerprints()
    assert len({each.partition("=")[2] for each in output.split()}) == len(output.split()) > 10
