"""The total of a purchase order."""

from collections.abc import Sequence

from command_server.contexts.inventory.domain.purchase_messages import PurchaseLine
from command_server.kernel.decider import Rejected
from command_server.kernel.money import UNITS_LIMIT, AmountOverflow, Money


def sum_lines(lines: Sequence[PurchaseLine]) -> Money:
    """Return the exact sum of quantity times unit price over at least one line.

    Raises:
        Rejected: the lines have different currencies, or the sum reaches UNITS_LIMIT.
    """
    total = Money(lines[0].unit_price.currency_code, 0)
    try:
        for line in lines:
            if line.unit_price.currency_code != total.currency_code:
                currencies = f"{total.currency_code} and {line.unit_price.currency_code}"
                raise Rejected("PURCHASE_ORDER_CURRENCY_MIXED", currencies=currencies)
            total += line.unit_price * line.quantity
    except AmountOverflow:
        raise Rejected("PURCHASE_ORDER_TOTAL_TOO_LARGE", below=UNITS_LIMIT) from None
    if total.units >= UNITS_LIMIT:
        raise Rejected("PURCHASE_ORDER_TOTAL_TOO_LARGE", below=UNITS_LIMIT)
    return total
