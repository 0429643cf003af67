"""The error of a call without a valid token or certificate: its cause, and who its sender claims to be."""

from enum import StrEnum
from typing import Any

import jwt

from runtime.grpc.rpc_error import RpcError
from runtime.process.terminal import escape

MAX_CLAIM_LENGTH = 64
"""Characters of a claimed name that are recorded."""


class Cause(StrEnum):
    """Why a call is unauthenticated; sent as `cause` in the metadata of the error."""

    MISSING = "MISSING"
    """There is no metadata `authorization: Bearer <token>`."""
    SEVERAL = "SEVERAL"
    """There is more than one metadata `authorization`."""
    MALFORMED = "MALFORMED"
    """It is no JSON Web Token."""
    WRONG_TYPE = "WRONG_TYPE"
    """It is another kind of JSON Web Token, as its `typ` says."""
    EXPIRED = "EXPIRED"
    NOT_YET_VALID = "NOT_YET_VALID"
    FORGED = "FORGED"
    """Its signature is not that of its key, or it names another algorithm."""
    UNKNOWN_KEY = "UNKNOWN_KEY"
    WRONG_AUDIENCE = "WRONG_AUDIENCE"
    WRONG_ISSUER = "WRONG_ISSUER"
    CLAIM_MISSING = "CLAIM_MISSING"
    CLAIM_INVALID = "CLAIM_INVALID"
    LIFETIME_TOO_LONG = "LIFETIME_TOO_LONG"
    CERTIFICATE_UNKNOWN = "CERTIFICATE_UNKNOWN"
    """There is no token, and the client certificate is of nobody in the table of callers."""
    CERTIFICATE_EXPIRED = "CERTIFICATE_EXPIRED"
    CERTIFICATE_INVALID = "CERTIFICATE_INVALID"
    """The client certificate has no name, or several."""


_CAUSES: tuple[tuple[type[jwt.InvalidTokenError], Cause], ...] = (
    (jwt.ExpiredSignatureError, Cause.EXPIRED),
    (jwt.ImmatureSignatureError, Cause.NOT_YET_VALID),
    (jwt.InvalidSignatureError, Cause.FORGED),
    (jwt.InvalidAlgorithmError, Cause.FORGED),
    (jwt.InvalidAudienceError, Cause.WRONG_AUDIENCE),
    (jwt.InvalidIssuerError, Cause.WRONG_ISSUER),
    (jwt.MissingRequiredClaimError, Cause.CLAIM_MISSING),
    (jwt.DecodeError, Cause.MALFORMED),
    (jwt.InvalidTokenError, Cause.CLAIM_INVALID),
)
"""The first that fits counts: some of these errors are subclasses of others."""


class Unauthenticated(RpcError):
    """A missing or invalid access token or client certificate.

    Args:
        cause: the cause.
        message: text for people.
        token: the token, from which the key and the issuer that it claims are read.
    """

    def __init__(self, cause: Cause, message: str, token: str = "") -> None:
        super().__init__("UNAUTHENTICATED", message, {"cause": cause})
        self.claimed_key, self.claimed_issuer = _read_claims(token) if token else ("", "")

    @classmethod
    def of_certificate(cls, cause: Cause, message: str, name: str) -> "Unauthenticated":
        """Return the error of a client certificate with this name."""
        error = cls(cause, message)
        error.metadata["certificate"] = name
        return error

    @classmethod
    def of(cls, error: jwt.InvalidTokenError, token: str) -> "Unauthenticated":
        """Return the error of a token that PyJWT refuses."""
        cause = next(cause for kind, cause in _CAUSES if isinstance(error, kind))
        return cls(cause, f"the token is not valid: {error}", token)


def _read_claims(token: str) -> tuple[str, str]:
    """Return the key id and the issuer that a token claims; nothing of it is verified."""
    try:
        decoded = jwt.decode_complete(token, options={"verify_signature": False})
    except (jwt.InvalidTokenError, ValueError, RecursionError):
        return "", ""
    return _escape(decoded["header"].get("kid")), _escape(decoded["payload"].get("iss"))


def _escape(claim: Any) -> str:
    """Return a claim as a printable text of limited length; anybody may have written it."""
    return escape(claim[:MAX_CLAIM_LENGTH])[:MAX_CLAIM_LENGTH] if isinstance(claim, str) else ""
