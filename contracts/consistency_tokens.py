"""Consistency tokens: the stream versions after a command, as a signed string that is opaque to clients.

The payload is a `diptych.consistency.v1.Token`.
"""

from collections.abc import Mapping

from diptych.consistency.v1.consistency_pb2 import Token
from google.protobuf.message import DecodeError

from contracts.key_ring import Purpose
from contracts.signed_tokens import GetKeyRing, InvalidToken, TokenSigner

MAX_STREAMS = 1_000
"""Streams that a token may name."""


class ConsistencyTokens:
    """Mints and reads consistency tokens.

    Args:
        get_ring: returns the current keys.
    """

    def __init__(self, get_ring: GetKeyRing) -> None:
        self._signer = TokenSigner(Purpose.CONSISTENCY_TOKENS, get_ring)

    def mint(self, incarnation: str, versions: Mapping[str, int]) -> str:
        """Encode a token.

        Args:
            incarnation: the incarnation of the database.
            versions: stream name to the stream's version after the command.
        """
        streams = [{"stream": stream, "version": version} for stream, version in versions.items()]
        token = Token(incarnation=incarnation, streams=streams)  # type: ignore[arg-type] # Protobuf takes dicts
        return self._signer.sign(token.SerializeToString())

    def read(self, token: str) -> Token:
        """Decode a token.

        Raises:
            InvalidToken: the string was not minted here, or its key is revoked.
        """
        payload = self._signer.verify(token)
        try:
            content = Token.FromString(payload)
        except DecodeError:
            raise InvalidToken("MALFORMED") from None
        if not content.incarnation or len(content.streams) > MAX_STREAMS:
            raise InvalidToken("MALFORMED")
        return content
