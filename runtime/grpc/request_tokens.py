"""The tokens that requests carry, read from them; an invalid one is an RpcError."""

from diptych.consistency.v1.consistency_pb2 import Token

from contracts import consistency_tokens, page_tokens
from runtime.grpc.rpc_error import RpcError


def read_consistency_token(token: str) -> Token:
    """Return the content of `at_least_as_fresh`.

    Raises:
        Refusal: `TOKEN_INVALID`.
    """
    try:
        return consistency_tokens.read(token)
    except ValueError as error:
        raise RpcError("TOKEN_INVALID", "at_least_as_fresh is not a consistency token") from error


def read_page_token(listed: str, token: str) -> str:
    """Return the last record of the page before; empty for the first page. A caller may have made it up.

    Args:
        listed: what the filters of the request select, all of them.
        token: the request's page token; empty for the first page.

    Raises:
        Refusal: `PAGE_TOKEN_INVALID`.
    """
    try:
        return page_tokens.read(listed, token)
    except ValueError as error:
        raise invalid_page_token() from error


def invalid_page_token() -> RpcError:
    """Return the error of a page token that does not belong to the list."""
    return RpcError(
        "PAGE_TOKEN_INVALID", "page_token is not the next_page_token of a page with the same filters"
    )
