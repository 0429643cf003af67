"""The parts of a payment to several payees."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    payee_id: str
    amount: int


@dataclass(frozen=True)
class Memo:
    title: str
    lines: tuple[str, ...]
