"""The documents that earlier pages of a search have shown, as a text for a page token.

Each page searches again, and leaves out what the pages before have shown. So no page repeats a document,
and one that moves to an earlier place is on the next page. The token carries all that is needed: every
server can continue, also after a restart. A document takes 5 bytes. That two of 1,000 share them, so that one
is left out, happens in one of two million searches.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterable

import msgspec

from runtime.grpc.request_tokens import invalid_page_token

SIZE = 5


def shorten(hash_of_id: int) -> int:
    """Return the part of a document's hash that is kept."""
    return hash_of_id & (1 << 8 * SIZE) - 1


class ShownDocuments(msgspec.Struct, frozen=True):
    """What the pages before have shown."""

    hashes: frozenset[int] = frozenset()
    mode: str = ""
    """One character: how the first page searched; empty on the first page."""

    @classmethod
    def parse(cls, text: str) -> "ShownDocuments":
        """Return the content of a page token; nothing is shown without a token.

        Raises:
            RpcError: `PAGE_TOKEN_INVALID`.
        """
        if not text:
            return cls()
        try:
            data = b64decode(text[1:], validate=True)
        except ValueError:
            raise invalid_page_token() from None
        parts = (data[start : start + SIZE] for start in range(0, len(data), SIZE))
        return cls(frozenset(map(int.from_bytes, parts)), text[0])

    def add(self, hashes: Iterable[int], mode: str) -> str:
        """Return the text for the token of the next page."""
        shown = sorted(self.hashes.union(map(shorten, hashes)))
        return mode + b64encode(b"".join(each.to_bytes(SIZE) for each in shown)).decode()
