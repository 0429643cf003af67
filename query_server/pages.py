"""Pages: the fields that requests for one share, the tokens between them, and the response."""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from query_server.fresh_reader import FreshReader
from query_server.wire_format import (
    ARCHIVED_BEFORE,
    ITEMS,
    NEXT_PAGE_TOKEN,
    encode_field,
    encode_number,
    encode_repeated,
)
from runtime.grpc.request_tokens import RequestTokens

DEFAULT_PAGE_SIZE = 20
"""Items per page, if the request names no size."""


class PageRequest(Protocol):
    """A request for a page."""

    DESCRIPTOR: Any

    @property
    def page_size(self) -> int: ...
    @property
    def page_token(self) -> str: ...


def get_size(request: PageRequest) -> int:
    """Return the maximum number of items of a page."""
    return request.page_size or DEFAULT_PAGE_SIZE


class PagedList(msgspec.Struct, frozen=True):
    """The list that a request pages through.

    Args:
        tokens: mints and reads its page tokens.
        request: the request for a page.
        list_id: identifies the list, including every filter of the request.
    """

    tokens: RequestTokens
    request: PageRequest
    list_id: str

    @classmethod
    def of(cls, reader: FreshReader, request: PageRequest, list_id: str) -> "PagedList":
        """Return the list of a call.

        Args:
            reader: of the call.
            request: the request for a page.
            list_id: as for the class; it may begin with a key. A list has the same id in every generation, so
                that a token of one continues in the others.
        """
        return cls(reader.tokens, request, reader.view.move_back(list_id))

    def read_token(self) -> str:
        """Return the record after which the requested page begins; empty for the first page.

        Raises:
            RpcError: `PAGE_TOKEN_INVALID`.
        """
        return self.tokens.read_page_token(self.request, self.list_id)

    def build_page(self, items: Sequence[bytes], last: str, archived_before: int = 0) -> "Page":
        """Return the requested page.

        Args:
            items: the serialised items.
            last: the record after which the next page begins; empty on the last page.
            archived_before: the version below which entries of a history are archived; 0 if none are.
        """
        token = self.tokens.mint_page_token(self.request, self.list_id, last) if last else ""
        return Page(items, token, archived_before)


class Page(msgspec.Struct, frozen=True):
    """Serialised items, and the token of the page after them; empty on the last page."""

    items: Sequence[bytes]
    next_page_token: str
    archived_before: int = 0
    """The version below which entries of a history are archived; 0 if none are."""

    def encode(self) -> bytes:
        """Return the serialised response: items, `next_page_token` and what is archived as fields 1 to 3."""
        token = encode_field(NEXT_PAGE_TOKEN, self.next_page_token.encode()) if self.next_page_token else b""
        archived = encode_number(ARCHIVED_BEFORE, self.archived_before) if self.archived_before else b""
        return encode_repeated(ITEMS, self.items) + token + archived
