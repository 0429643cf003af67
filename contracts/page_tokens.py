"""Page tokens: the last record of a page and a digest of its list, as a string that is opaque to clients.

A token names a record, not an offset. Records inserted in front of it shift nothing, so pages neither skip
nor repeat records while new ones arrive. The digest ties the token to the filters of the list. It is not a
signature: a client can forge a token.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from hashlib import blake2b

_DIGEST_SIZE = 8


def mint(list_id: str, last: str) -> str:
    """Return the token of the page after a record.

    Args:
        list_id: identifies the list, including every filter of the request.
        last: the last record of the page before.
    """
    digest = blake2b(f"{list_id} {last}".encode(), digest_size=_DIGEST_SIZE).digest()
    return urlsafe_b64encode(digest + last.encode()).decode()


def read(list_id: str, token: str) -> str:
    """Return the last record of the page before; empty for the first page. Callers can forge it.

    Args:
        list_id: identifies the list, including every filter of the request.
        token: the request's page token; empty for the first page.

    Raises:
        ValueError: the string is not a page token, or belongs to a list with other filters.
    """
    if not token:
        return ""
    try:
        last = urlsafe_b64decode(token)[_DIGEST_SIZE:].decode(errors="replace")
    except (NotBase64, ValueError):
        last = ""
    if mint(list_id, last) != token:
        raise ValueError("not a page token of this list")
    return last
