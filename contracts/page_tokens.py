"""Page tokens: where the next page begins and of which list, in a form that clients only carry.

A token names the last record of the page before, not an offset. What is inserted in front of it meanwhile
moves nothing, so pages neither skip nor repeat while new records come in.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from hashlib import blake2b

_DIGEST = 8


def mint(listed: str, last: str) -> str:
    """Return the token of the page that follows on a record of what is listed."""
    digest = blake2b(f"{listed} {last}".encode(), digest_size=_DIGEST).digest()
    return urlsafe_b64encode(digest + last.encode()).decode()


def read(listed: str, token: str) -> str:
    """Return what a page follows on; empty for the first page. A caller may have made it up.

    Args:
        listed: what the filters of the request select, all of them.
        token: the request's page token; empty for the first page.

    Raises:
        ValueError: `mint` did not make it, or made it for other filters.
    """
    if not token:
        return ""
    try:
        last = urlsafe_b64decode(token)[_DIGEST:].decode(errors="replace")
    except (NotBase64, ValueError):
        last = ""
    if mint(listed, last) != token:
        raise ValueError("not a page token of this list")
    return last
