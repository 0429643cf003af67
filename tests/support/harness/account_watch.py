"""A saga of two streams for the process manager's tests: an account, and the cheques written against it.

It records every event that it receives, and deposits one for each cheque.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from process_manager.saga import EventReceived, Input, Reaction, Saga, SagaStatus, Send
from process_manager.subscriptions import Subscription
from tests.support.ledger.events import EVENTS
from tests.support.ledger.stubs import commands, events_v2

BROKEN = 13
"""The amount on which the saga's code fails."""
BROKEN_KEY = "broken-key"
"""The account for which the key's function fails."""


@dataclass(frozen=True)
class Watch:
    received: tuple[tuple[str, int], ...] = ()
    """Pairs of stream and version, in the order of arrival."""

    def versions_of(self, stream: str) -> list[int]:
        return [version for name, version in self.received if name == stream]


def react(watch: Watch, input_: Input) -> Reaction[Watch]:
    match input_:
        case EventReceived(event, version, stream):
            if getattr(event, "amount", 0) == BROKEN:
                raise RuntimeError("the saga's code is broken")
            watch = replace(watch, received=(*watch.received, (stream, version)))
            return Reaction(watch, _deposit(event, stream, version))
    return Reaction(watch)


def _deposit(event: Any, stream: str, version: int) -> Sequence[Send]:
    if not isinstance(event, events_v2.ChequeWritten):
        return ()
    request = commands.DepositRequest(account_id=event.account_id, amount=1)
    return [Send(f"deposit-{stream.rpartition('.')[2]}-{version}", request)]


def find_account(event: Any) -> str:
    if event.account_id == BROKEN_KEY:
        raise RuntimeError("the key is broken")
    return str(event.account_id)


ACCOUNT_WATCH: Saga[Any] = Saga(
    name="ledger.account_watch",
    subscribes_to=(
        Subscription("ledger.account", EVENTS),
        Subscription("ledger.cheque", EVENTS, key={events_v2.ChequeWritten: find_account}),
    ),
    begins="first_event",
    requests=(commands.DepositRequest,),
    initial=Watch(),
    react=react,
    describe_status=lambda watch: SagaStatus("WATCHING", False),
)
