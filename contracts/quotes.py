"""Quotes: signed promises of a price, which the caller takes from one context to another.

The payload is a `diptych.pricing.v1.Quote`.
"""

from diptych.pricing.v1.quote_pb2 import Quote

from contracts.key_ring import Purpose
from contracts.signed_tokens import GetKeyRing, TokenSigner


class Quotes:
    """Signs quotes.

    Args:
        get_ring: returns the current keys.
    """

    def __init__(self, get_ring: GetKeyRing) -> None:
        self._signer = TokenSigner(Purpose.QUOTE, get_ring)

    def sign(self, quote: Quote) -> str:
        return self._signer.sign(quote.SerializeToString())
