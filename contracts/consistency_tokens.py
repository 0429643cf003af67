"""Consistency tokens: what a command touched, in a form that clients only carry."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping

from diptych.consistency.v1.consistency_pb2 import StreamVersion, Token
from google.protobuf.message import DecodeError


def mint(incarnation: str, versions: Mapping[str, int]) -> str:
    """Return the token of a command that left these streams at these versions."""
    streams = [StreamVersion(stream=stream, version=version) for stream, version in versions.items()]
    return urlsafe_b64encode(Token(incarnation=incarnation, streams=streams).SerializeToString()).decode()


def read(token: str) -> Token:
    """Return the content of a token.

    Raises:
        ValueError: `mint` did not make it.
    """
    try:
        content = Token.FromString(urlsafe_b64decode(token.encode()))
    except (NotBase64, DecodeError) as error:
        raise ValueError("not a consistency token") from error
    if not content.incarnation:
        raise ValueError("a consistency token names an incarnation")
    return content
