"""The parts of a payment to several payees."""

from dataclasses import dataclass
from typing import Annotated

from command_server.kernel.field_rules import Id, at_most, between, length


@dataclass(frozen=True)
class Share:
    payee_id: Id
    amount: Annotated[int, between(0)]


@dataclass(frozen=True)
class Memo:
    title: Annotated[str, length(0, 200)]
    lines: Annotated[tuple[Annotated[str, length(1, 200)], ...], at_most(100)]
