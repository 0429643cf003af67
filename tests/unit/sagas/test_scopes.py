"""The scopes of the process manager's token follow from the requests that sagas declare."""

from process_manager.scopes import required_scopes
from tests.support.harness.collection import COLLECTION
from tests.support.harness.contexts import SAGAS


def test_the_scopes_follow_from_the_declared_requests() -> None:
    assert required_scopes([COLLECTION]) == ("ledger.write",)
    assert required_scopes([]) == ()


def test_the_process_manager_needs_seven_scopes() -> None:
    assert required_scopes(SAGAS) == (
        "banking.hold",
        "banking.write",
        "inventory.reserve",
        "inventory.write",
        "ordering.read",
        "ordering.review",
        "ordering.write",
    )
