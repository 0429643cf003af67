"""Consistency tokens: the stream versions after a command, as a string that is opaque to clients.

The string is URL-safe Base64 of a `diptych.consistency.v1.Token`.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping

from diptych.consistency.v1.consistency_pb2 import StreamVersion, Token
from google.protobuf.message import DecodeError


def mint(incarnation: str, versions: Mapping[str, int]) -> str:
    """Encode a token.

    Args:
        incarnation: the incarnation of the database.
        versions: stream name to the stream's version after the command.
    """
    streams = [StreamVersion(stream=stream, version=version) for stream, version in versions.items()]
    return urlsafe_b64encode(Token(incarnation=incarnation, streams=streams).SerializeToString()).decode()


def read(token: str) -> Token:
    """Decode a token.

    Raises:
        ValueError: the string is not a token made by `mint`.
    """
    try:
        content = Token.FromString(urlsafe_b64decode(token.encode()))
    except (NotBase64, DecodeError) as error:
        raise ValueError("not a consistency token") from error
    if not content.incarnation:
        raise ValueError("not a consistency token: no incarnation")
    return content
