"""What an order holds while it can still be changed: groups of lines, their sum, and the rules for both."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from command_server.contexts.ordering.domain.messages import OrderLine, PlacedGroup, ShippingAddress
from command_server.kernel.decider import NotFound, Rejected
from command_server.kernel.money import AmountOverflow, CurrencyMismatch, Money

MOST_LINES = 100
"""Lines of an order, of all its groups."""
LARGEST_TOTAL = 10**12
"""Whole units of a currency that an order may come to, so that sums over many orders fit 64 bits."""


@dataclass(frozen=True, slots=True)
class Group:
    """Lines that travel together; the address is unknown where it was sealed."""

    shipping_group_id: str
    lines: tuple[OrderLine, ...]
    shipping_address: ShippingAddress | None

    @classmethod
    def of(cls, placed: PlacedGroup) -> "Group":
        """Return a group as it was placed."""
        return cls(placed.shipping_group_id, placed.lines, placed.personal.shipping_address)

    def line(self, sku: str) -> OrderLine | None:
        """Return the line of an article, if there is one."""
        return next((line for line in self.lines if line.sku == sku), None)


@dataclass(frozen=True, slots=True)
class Contents:
    """All groups of an order, one at least once it is placed."""

    groups: tuple[Group, ...] = ()

    @property
    def lines(self) -> tuple[OrderLine, ...]:
        """The lines of all groups."""
        return tuple(line for group in self.groups for line in group.lines)

    def group(self, group_id: str) -> Group:
        """Return the group of an id; the only one where the id is empty.

        Raises:
            Missing: there is none, or the id is empty and there are several.
        """
        for group in self.groups:
            if group.shipping_group_id == group_id or (not group_id and len(self.groups) == 1):
                return group
        raise NotFound("SHIPPING_GROUP_NOT_FOUND", shipping_group_id=group_id)

    def with_line(self, group_id: str, line: OrderLine) -> "Contents":
        """Return the contents with a line more, the last of its group."""
        group = self.group(group_id)
        return self._with(replace(group, lines=(*group.lines, line)))

    def without_line(self, group_id: str, sku: str) -> "Contents":
        """Return the contents without an article's line."""
        group = self.group(group_id)
        return self._with(replace(group, lines=tuple(line for line in group.lines if line.sku != sku)))

    def sent_to(self, group_id: str, address: ShippingAddress | None) -> "Contents":
        """Return the contents with a group that goes elsewhere."""
        return self._with(replace(self.group(group_id), shipping_address=address))

    def _with(self, changed: Group) -> "Contents":
        return Contents(
            tuple(
                changed if group.shipping_group_id == changed.shipping_group_id else group
                for group in self.groups
            )
        )

    def total(self) -> Money:
        """Return the sum over all lines of quantity times unit price.

        Raises:
            Rejected: it mixes currencies, or is too large.
        """
        return total(self.lines)


EMPTY = Contents()


def check_group_ids(ids: Sequence[str]) -> None:
    """Refuse groups of the same id."""
    if repeated := _repeated(ids):
        raise Rejected("SHIPPING_GROUP_REPEATED", shipping_group_id=repeated)


def check_skus(lines: Sequence[OrderLine]) -> None:
    """Refuse two lines of the same article in one group."""
    if repeated := _repeated([line.sku for line in lines]):
        raise Rejected("ORDER_LINE_REPEATED", sku=repeated)


def check_count(lines: Sequence[OrderLine]) -> None:
    """Refuse more lines than an order may have."""
    if len(lines) > MOST_LINES:
        raise Rejected("ORDER_TOO_MANY_LINES", lines=len(lines), most=MOST_LINES)


def total(lines: Sequence[OrderLine]) -> Money:
    """Return the exact sum over lines; refuse one of several currencies, or larger than allowed."""
    try:
        amount = lines[0].unit_price * lines[0].quantity
        for line in lines[1:]:
            amount += line.unit_price * line.quantity
    except CurrencyMismatch as error:
        raise Rejected("ORDER_CURRENCY_MIXED", currencies=error) from None
    except AmountOverflow:
        raise Rejected("ORDER_TOTAL_TOO_LARGE", below=LARGEST_TOTAL) from None
    if amount.units >= LARGEST_TOTAL:
        raise Rejected("ORDER_TOTAL_TOO_LARGE", below=LARGEST_TOTAL)
    return amount


def _repeated(values: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None
