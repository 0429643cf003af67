"""Page and resume tokens: a position in a list or watch, as a signed string that is opaque to clients.

A token names a record, not an offset. Records inserted in front of it shift nothing, so pages neither skip
nor repeat records while new ones arrive. It is valid for one list alone, with the same filters.
"""

from contracts.key_ring import Purpose
from contracts.signed_tokens import GetKeyRing, InvalidToken, TokenSigner


class PageTokens:
    """Mints and reads tokens of positions in lists.

    Args:
        get_ring: returns the current keys.
        purpose: of the keys.
    """

    def __init__(self, get_ring: GetKeyRing, purpose: Purpose = Purpose.PAGE_TOKENS) -> None:
        self._signer = TokenSigner(purpose, get_ring)

    def mint(self, list_id: str, last: str) -> str:
        """Return the token of the page after a record.

        Args:
            list_id: identifies the list, including every filter of the request.
            last: the last record of the page before.
        """
        return self._signer.sign(last.encode(), list_id)

    def read(self, list_id: str, token: str) -> str:
        """Return the last record of the page before; empty for the first page.

        Args:
            list_id: identifies the list, including every filter of the request.
            token: the request's token; empty for the first page.

        Raises:
            InvalidToken: the string was not minted here for this list, or its key is revoked.
        """
        try:
            return self._signer.verify(token, list_id).decode() if token else ""
        except UnicodeDecodeError:
            raise InvalidToken("MALFORMED") from None
