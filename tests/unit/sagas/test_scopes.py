"""The scopes of the process manager's token follow from the requests that sagas declare."""

from dataclasses import replace
from pathlib import Path

import jwt
import pytest

from devstack import tokens
from process_manager.sagas.fulfilment import FULFILMENT
from process_manager.scopes import required_scopes
from runtime.process.settings import Settings
from tests.support.ledger.sagas import COLLECTION
from tests.support.ledger.stubs import commands


def test_the_scopes_follow_from_the_declared_requests() -> None:
    assert required_scopes([COLLECTION]) == ("ledger.write",)
    assert required_scopes([]) == ()


def test_a_fulfilment_needs_the_scopes_of_its_duties_and_reaches_all_orders() -> None:
    assert required_scopes([FULFILMENT]) == (
        "banking.hold",
        "banking.refund",
        "fulfilment.record",
        "inventory.reserve",
        "inventory.write",
        "ordering.all",
        "ordering.confirm",
        "ordering.read",
        "ordering.review",
    )


def test_the_local_stacks_token_has_the_scope_of_every_declared_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that a saga sends is declared (the simulation checks it), so the token has its scope."""
    only_declared = replace(COLLECTION, requests=(*FULFILMENT.requests, commands.CashChequeRequest))
    monkeypatch.setattr(tokens, "load_parts", lambda *_: [only_declared])
    settings = Settings(
        jwks=str(tmp_path / "jwks.json"), process_manager_token=str(tmp_path / "process-manager.token")
    )
    tokens.make_keys(Path(settings.jwks))
    tokens.write_process_manager_token(settings)
    token = Path(settings.process_manager_token).read_text()
    claims = jwt.decode(token, options={"verify_signature": False})
    assert set(claims["scope"].split()) == {"ledger.write", *required_scopes([FULFILMENT])}
