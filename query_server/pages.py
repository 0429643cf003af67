"""Pages: the fields that requests for one share, and the response."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from contracts import page_tokens
from query_server.wire_format import ITEMS, NEXT_PAGE_TOKEN, encode_field, encode_repeated

DEFAULT_PAGE_SIZE = 20
"""Items per page, if the request names no size."""


class PageRequest(Protocol):
    """A request for a page."""

    @property
    def page_size(self) -> int: ...
    @property
    def page_token(self) -> str: ...


def get_size(request: PageRequest) -> int:
    """Return the maximum number of items of a page."""
    return request.page_size or DEFAULT_PAGE_SIZE


class Page(msgspec.Struct, frozen=True):
    """Serialised items, and the token of the page after them; empty on the last page."""

    items: Sequence[bytes]
    next_page_token: str

    @classmethod
    def of(cls, list_id: str, items: Sequence[bytes], last: str) -> "Page":
        """Return a page of a list.

        Args:
            list_id: identifies the list, including every filter of the request.
            items: the serialised items.
            last: the record after which the next page begins; empty on the last page.
        """
        return cls(items, page_tokens.mint(list_id, last) if last else "")

    def encode(self) -> bytes:
        """Return the serialised response: the items as field 1, `next_page_token` as field 2."""
        token = encode_field(NEXT_PAGE_TOKEN, self.next_page_token.encode()) if self.next_page_token else b""
        return encode_repeated(ITEMS, self.items) + token
