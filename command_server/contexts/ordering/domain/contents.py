"""The contents of an order: shipping groups of lines, their total, and the rules for both."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from command_server.contexts.ordering.domain.messages import OrderLine, PlacedGroup, ShippingAddress
from command_server.kernel.decider import NotFound, Rejected
from command_server.kernel.money import AmountOverflow, Money

MAX_LINES = 100
"""Maximum number of lines in all groups of an order together."""
TOTAL_LIMIT = 10**12
"""Exclusive upper bound of an order's total, in whole units of its currency, so that sums over millions
of orders fit 64 bits."""


@dataclass(frozen=True, slots=True)
class Group:
    """A shipping group. Its address is None if the event's personal data is sealed."""

    shipping_group_id: str
    lines: tuple[OrderLine, ...]
    shipping_address: ShippingAddress | None

    @classmethod
    def from_event(cls, group: PlacedGroup) -> "Group":
        return cls(group.shipping_group_id, group.lines, group.personal.shipping_address)

    def find_line(self, sku: str) -> OrderLine | None:
        return next((line for line in self.lines if line.sku == sku), None)


@dataclass(frozen=True, slots=True)
class Contents:
    """All shipping groups of an order. A placed order has at least one."""

    groups: tuple[Group, ...] = ()

    @property
    def lines(self) -> tuple[OrderLine, ...]:
        """The lines of all groups."""
        return tuple(line for group in self.groups for line in group.lines)

    def get_group(self, group_id: str) -> Group:
        """Return the group with this id, or the order's only group if the id is empty.

        Raises:
            NotFound: there is no such group, or the id is empty and the order has several groups.
        """
        for group in self.groups:
            if group.shipping_group_id == group_id or (not group_id and len(self.groups) == 1):
                return group
        raise NotFound("SHIPPING_GROUP_NOT_FOUND", shipping_group_id=group_id)

    def with_line(self, group_id: str, line: OrderLine) -> "Contents":
        """Return a copy with this line at the end of the group."""
        group = self.get_group(group_id)
        return self._with_group(replace(group, lines=(*group.lines, line)))

    def without_line(self, group_id: str, sku: str) -> "Contents":
        """Return a copy without this article's line in the group."""
        group = self.get_group(group_id)
        lines = tuple(line for line in group.lines if line.sku != sku)
        return self._with_group(replace(group, lines=lines))

    def with_address(self, group_id: str, address: ShippingAddress | None) -> "Contents":
        """Return a copy with this address for the group."""
        return self._with_group(replace(self.get_group(group_id), shipping_address=address))

    def _with_group(self, changed: Group) -> "Contents":
        return Contents(
            tuple(
                changed if group.shipping_group_id == changed.shipping_group_id else group
                for group in self.groups
            )
        )


EMPTY = Contents()


def check_unique_group_ids(ids: Sequence[str]) -> None:
    """Raise Rejected if two groups have the same id."""
    if duplicate := _find_duplicate(ids):
        raise Rejected("SHIPPING_GROUP_REPEATED", shipping_group_id=duplicate)


def check_unique_skus(lines: Sequence[OrderLine]) -> None:
    """Raise Rejected if two lines of one group are of the same article."""
    if duplicate := _find_duplicate([line.sku for line in lines]):
        raise Rejected("ORDER_LINE_REPEATED", sku=duplicate)


def check_line_count(lines: Sequence[OrderLine]) -> None:
    """Raise Rejected if an order has more than MAX_LINES lines."""
    if len(lines) > MAX_LINES:
        raise Rejected("ORDER_TOO_MANY_LINES", lines=len(lines), most=MAX_LINES)


def sum_lines(lines: Sequence[OrderLine]) -> Money:
    """Return the exact sum of quantity times unit price over at least one line.

    Raises:
        Rejected: the lines have different currencies, or the sum reaches TOTAL_LIMIT.
    """
    total = Money(lines[0].unit_price.currency_code, 0)
    try:
        for line in lines:
            price = line.unit_price * line.quantity
            if price.currency_code != total.currency_code:
                currencies = f"{total.currency_code} and {price.currency_code}"
                raise Rejected("ORDER_CURRENCY_MIXED", currencies=currencies)
            total += price
    except AmountOverflow:
        raise Rejected("ORDER_TOTAL_TOO_LARGE", below=TOTAL_LIMIT) from None
    if total.units >= TOTAL_LIMIT:
        raise Rejected("ORDER_TOTAL_TOO_LARGE", below=TOTAL_LIMIT)
    return total


def _find_duplicate(values: Iterable[str]) -> str | None:
    visited: set[str] = set()
    for value in values:
        if value in visited:
            return value
        visited.add(value)
    return None
