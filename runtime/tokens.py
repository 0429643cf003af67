"""Consistency tokens: what a command touched, in a form that clients only carry."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping

from diptych.consistency.v1.consistency_pb2 import StreamVersion, Token
from google.protobuf.message import DecodeError

from runtime.errors import Refusal


def mint(incarnation: str, versions: Mapping[str, int]) -> str:
    """Return the token of a command that left these streams at these versions."""
    streams = [StreamVersion(stream=stream, version=version) for stream, version in versions.items()]
    return urlsafe_b64encode(Token(incarnation=incarnation, streams=streams).SerializeToString()).decode()


def read(token: str) -> Token:
    """Return what a token says.

    Raises:
        Refusal: `TOKEN_INVALID`, it is not one of ours.
    """
    try:
        content = Token.FromString(urlsafe_b64decode(token.encode()))
        if not content.incarnation:
            raise ValueError("a token names an incarnation")
        return content
    except (NotBase64, DecodeError, ValueError) as error:
        raise Refusal("TOKEN_INVALID", "at_least_as_fresh is not a consistency token") from error
