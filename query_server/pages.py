"""Page tokens: where the next page begins and of which list, in a form that clients only carry.

A token names the last member of the page before, not an offset. What is inserted in front of it meanwhile
moves nothing, so pages neither skip nor repeat while new records come in.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from hashlib import blake2b

from runtime.errors import Refusal

_DIGEST = 8


def mint(index: str, last: str) -> str:
    """Return the token of the page that follows on a member of an index."""
    digest = blake2b(f"{index} {last}".encode(), digest_size=_DIGEST).digest()
    return urlsafe_b64encode(digest + last.encode()).decode()


def read(index: str, token: str) -> str:
    """Return the member that a page follows on; empty for the first page.

    Args:
        index: the key of the index, which the filters of the request select.
        token: the request's page token; empty for the first page.

    Raises:
        Refusal: `PAGE_TOKEN_INVALID`, it is no token of ours, or it belongs to other filters.
    """
    if not token:
        return ""
    try:
        last = urlsafe_b64decode(token)[_DIGEST:].decode(errors="replace")
    except (NotBase64, ValueError):
        last = ""
    if mint(index, last) != token:
        raise Refusal(
            "PAGE_TOKEN_INVALID", "page_token is not the next_page_token of a page with the same filters"
        )
    return last
