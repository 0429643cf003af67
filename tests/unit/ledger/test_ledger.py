"""The toy context keeps the rules that every context keeps, so that the platform's tests may rest on it."""

import random
from collections.abc import Iterator

import pytest

from contracts.manifest import find_manifests
from diptych_testing import folds
from diptych_testing.world import World
from runtime.process.contexts import choose_contexts
from runtime.process.settings import Settings
from tests.support.ledger.installation import installed
from tests.support.ledger.manifest import MANIFEST
from tests.support.ledger.rules import CONTEXT
from tests.support.ledger.rules.messages import (
    CashCheque,
    Deposit,
    Distribute,
    EndorseCheque,
    Transfer,
    VoidCheque,
    WriteCheque,
)
from tests.support.ledger.rules.shares import Memo, Share


@pytest.fixture
def ledger() -> Iterator[None]:
    with installed():
        folds._load_contexts.cache_clear()
        yield
    folds._load_contexts.cache_clear()


@pytest.fixture
def world() -> World:
    return World(*CONTEXT.deciders)


def test_it_is_the_only_context_while_it_is_installed() -> None:
    with installed():
        assert choose_contexts(Settings()) == [MANIFEST]
    assert MANIFEST.name not in find_manifests()


@pytest.mark.usefixtures("ledger")
def test_its_rules_projections_and_verification_agree(world: World) -> None:
    chance = random.Random(1)
    world.execute(*(Deposit(f"a-{number}", 10_000) for number in range(3)))
    for number in range(40):
        cheque_id, account = f"c-{number}", f"a-{chance.randrange(3)}"
        world.execute(WriteCheque(cheque_id, account, chance.randint(1, 300), caller="ada"))
        world.execute(*(EndorseCheque(cheque_id, caller="bob") for _ in range(chance.randrange(3))))
        if end := chance.choice([None, CashCheque(cheque_id), VoidCheque(cheque_id, "enough")]):
            world.execute(end)
        world.execute(Transfer(account, "a-9", 1), Distribute(account, (Share("a-8", 2),), Memo("", ())))
    folds.compare(world)
    world.assert_snapshots_decode()


def test_a_cheque_pays_once(world: World) -> None:
    world.execute(WriteCheque("c", "a", 5), CashCheque("c"))
    world.assert_rejected(CashCheque("c"), "CHEQUE_WORTHLESS", status="CASHED")
    world.assert_rejected(VoidCheque("c", "no"), "CHEQUE_WORTHLESS")
    world.assert_rejected(EndorseCheque("x"), "CHEQUE_NOT_FOUND", cheque_id="x")
    assert world.snapshot("ledger.account.a") == '{"balance":-5}'


def test_voiding_twice_changes_nothing(world: World) -> None:
    world.execute(WriteCheque("c", "a", 5), VoidCheque("c", "lost"))
    world.assert_unchanged(VoidCheque("c", "lost"))


def test_an_account_pays_only_what_it_has(world: World) -> None:
    world.execute(Deposit("a", 5), Distribute("a", (Share("b", 2), Share("c", 2)), Memo("", ())))
    world.assert_rejected(Transfer("a", "b", 2), "LEDGER_TOO_POOR", balance="1")
