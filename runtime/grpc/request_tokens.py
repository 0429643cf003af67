"""The tokens that servers accept back from clients; invalid ones become an `RpcError`."""

from typing import Any

from diptych.consistency.v1.consistency_pb2 import Token

from contracts.consistency_tokens import ConsistencyTokens
from contracts.key_ring import Purpose
from contracts.page_tokens import PageTokens
from contracts.signed_tokens import GetKeyRing, InvalidToken
from runtime.grpc import caller
from runtime.grpc.rpc_error import RpcError

PURPOSES = (Purpose.CONSISTENCY_TOKENS, Purpose.PAGE_TOKENS, Purpose.WATCH_TOKENS)
"""The purposes of the keys that a server of queries needs."""


class RequestTokens:
    """Mints and reads the tokens of a server of queries.

    Args:
        get_ring: returns the current keys.
    """

    def __init__(self, get_ring: GetKeyRing) -> None:
        self.get_ring = get_ring
        self._consistency_tokens = ConsistencyTokens(get_ring)
        self._page_tokens = PageTokens(get_ring)
        self._watch_tokens = PageTokens(get_ring, Purpose.WATCH_TOKENS)

    def read_consistency_token(self, token: str) -> Token:
        """Decode the field `at_least_as_fresh`.

        Raises:
            RpcError: `TOKEN_INVALID`.
        """
        try:
            return self._consistency_tokens.read(token)
        except InvalidToken as error:
            message = f"at_least_as_fresh: not a valid consistency token: {error}"
            raise RpcError("TOKEN_INVALID", message, {"cause": error.cause}) from error

    def mint_page_token(self, request: Any, list_id: str, last: str) -> str:
        """Return the token of the page after a record, valid for the caller and the request's method.

        Args:
            request: the request for the page before.
            list_id: identifies the list, including every filter of the request.
            last: the last record of the page before.
        """
        return self._page_tokens.mint(_scope(request, list_id), last)

    def read_page_token(self, request: Any, list_id: str) -> str:
        """Return the last record of the page before; empty for the first page.

        Args:
            request: a request with `page_token`.
            list_id: as for `mint_page_token`.

        Raises:
            RpcError: `PAGE_TOKEN_INVALID`.
        """
        try:
            return self._page_tokens.read(_scope(request, list_id), request.page_token)
        except InvalidToken as error:
            raise invalid_page_token(error.cause) from error

    def mint_resume_token(self, key: str, position: str) -> str:
        """Return the token that resumes a watch.

        Args:
            key: of the view or change feed that is watched.
            position: of the last response.
        """
        return self._watch_tokens.mint(key, position)

    def read_resume_token(self, key: str, token: str) -> str:
        """Return the position of the last response; empty without a token.

        Raises:
            RpcError: `RESUME_TOKEN_INVALID`.
        """
        try:
            return self._watch_tokens.read(key, token)
        except InvalidToken as error:
            message = f"resume_token: not from a response of the same watch: {error}"
            raise RpcError("RESUME_TOKEN_INVALID", message, {"cause": error.cause}) from error


def invalid_page_token(cause: str = "MALFORMED") -> RpcError:
    message = "page_token: not the next_page_token of a page with the same method, caller and filters"
    return RpcError("PAGE_TOKEN_INVALID", message, {"cause": cause})


def _scope(request: Any, list_id: str) -> str:
    """Return what a page token is valid for.

    A request's type stands for its method, because no two methods share one.
    """
    current_caller = caller.current_or_none()
    subject = current_caller.subject if current_caller else ""
    return f"{request.DESCRIPTOR.full_name}\0{subject}\0{list_id}"
