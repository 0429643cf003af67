"""Consistency and page tokens in requests; invalid ones become an `RpcError`."""

from diptych.consistency.v1.consistency_pb2 import Token

from contracts import consistency_tokens, page_tokens
from runtime.grpc.rpc_error import RpcError


def read_consistency_token(token: str) -> Token:
    """Decode the field `at_least_as_fresh`.

    Raises:
        RpcError: `TOKEN_INVALID`.
    """
    try:
        return consistency_tokens.read(token)
    except ValueError as error:
        raise RpcError("TOKEN_INVALID", "at_least_as_fresh is not a consistency token") from error


def read_page_token(list_id: str, token: str) -> str:
    """Return the last record of the page before; empty for the first page. Callers can forge it.

    Args:
        list_id: identifies the list, including every filter of the request.
        token: the request's page token; empty for the first page.

    Raises:
        RpcError: `PAGE_TOKEN_INVALID`.
    """
    try:
        return page_tokens.read(list_id, token)
    except ValueError as error:
        raise invalid_page_token() from error


def invalid_page_token() -> RpcError:
    return RpcError(
        "PAGE_TOKEN_INVALID", "page_token is not the next_page_token of a page with the same filters"
    )
