"""The prices of an order's lines: each is quoted, unless the caller may set prices.

A quote is a promise that another context has signed. Its signature is verified before the decision; what it
says is compared here with the order.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from command_server.contexts.ordering.domain.messages import AddOrderLine, OrderLine, PlaceOrder, Quote
from command_server.kernel.decider import InvalidValue, Rejected

OWN_PRICES = "ordering.own-prices"
"""The scope of callers whose lines need no quotes."""

UNVERIFIED = InvalidValue("MALFORMED")


def check_prices(
    command: PlaceOrder | AddOrderLine, lines: Sequence[OrderLine], customer_id: str, now: datetime
) -> None:
    """Check that every line has a valid quote, or is of a caller who may set prices.

    Raises:
        Rejected: `QUOTE_INVALID`, `QUOTE_MISSING`, `QUOTE_OF_NO_LINE`, or a reason of `_check_quote`.
    """
    quotes = _group_quotes(command)
    for line in lines:
        quoted = quotes.get(line.sku, ())
        if not quoted and OWN_PRICES not in command.scopes:
            raise Rejected("QUOTE_MISSING", sku=line.sku)
        # Of several quotes one has to match: the same article may be in two groups, at two prices.
        matching = [quote for quote in quoted if quote.price == line.unit_price]
        for quote in matching[:1] or quoted[:1]:
            _check_quote(quote, line, customer_id, now)
    if unused := quotes.keys() - {line.sku for line in lines}:
        raise Rejected("QUOTE_OF_NO_LINE", sku=min(unused))


def _group_quotes(command: PlaceOrder | AddOrderLine) -> dict[str, list[Quote]]:
    """Return the quotes of a command by sku."""
    quotes = defaultdict[str, list[Quote]](list)
    for index, token in enumerate(command.tokens):
        value = command.signed_values.get(token, UNVERIFIED)
        if not isinstance(value, Quote):
            raise Rejected("QUOTE_INVALID", index=index, cause=value.cause)
        quotes[value.sku].append(value)
    return quotes


def _check_quote(quote: Quote, line: OrderLine, customer_id: str, now: datetime) -> None:
    """Compare a quote with its line.

    Raises:
        Rejected: `QUOTE_OF_ANOTHER_CUSTOMER`, `QUOTE_EXPIRED`, `QUOTE_OF_ANOTHER_PRICE`.
    """
    if quote.customer_id != customer_id:
        raise Rejected("QUOTE_OF_ANOTHER_CUSTOMER", sku=line.sku)
    if quote.expires_at <= now:
        raise Rejected("QUOTE_EXPIRED", sku=line.sku, expires_at=quote.expires_at)
    if quote.price != line.unit_price:
        raise Rejected("QUOTE_OF_ANOTHER_PRICE", sku=line.sku, quoted=_format(quote), ordered=_format(line))


def _format(priced: Quote | OrderLine) -> str:
    price = priced.price if isinstance(priced, Quote) else priced.unit_price
    return f"{price.units}.{price.nanos:09} {price.currency_code}"
