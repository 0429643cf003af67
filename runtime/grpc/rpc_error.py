"""The error that ends a call, and the gRPC status of every reason of the infrastructure.

Contexts add reasons of their own (`RpcError.of_rule`); the kind of the rejection determines their status.
"""

from collections.abc import Mapping

from grpc import StatusCode

STATUS = {
    # the caller
    "UNAUTHENTICATED": StatusCode.UNAUTHENTICATED,
    "TOKEN_EXPIRED": StatusCode.UNAUTHENTICATED,
    "SCOPE_MISSING": StatusCode.PERMISSION_DENIED,
    "NOT_THE_OWNER": StatusCode.PERMISSION_DENIED,
    "KEYS_UNAVAILABLE": StatusCode.UNAVAILABLE,
    "TOO_MANY_CALLS": StatusCode.RESOURCE_EXHAUSTED,
    # the request
    "REQUEST_INVALID": StatusCode.INVALID_ARGUMENT,
    "REQUEST_TOO_LARGE": StatusCode.INVALID_ARGUMENT,
    "TOKEN_INVALID": StatusCode.INVALID_ARGUMENT,
    "PAGE_TOKEN_INVALID": StatusCode.INVALID_ARGUMENT,
    "RESUME_TOKEN_INVALID": StatusCode.INVALID_ARGUMENT,
    "METHOD_UNKNOWN": StatusCode.UNIMPLEMENTED,
    # commands
    "REQUEST_ID_REUSED": StatusCode.ALREADY_EXISTS,
    "REQUEST_TOO_OLD": StatusCode.FAILED_PRECONDITION,
    "VERSION_MISMATCH": StatusCode.ABORTED,
    "DEADLINE_PASSED": StatusCode.DEADLINE_EXCEEDED,
    "OVERLOADED": StatusCode.RESOURCE_EXHAUSTED,
    "OUTCOME_PENDING": StatusCode.UNAVAILABLE,
    "WRITE_MODEL_UNAVAILABLE": StatusCode.UNAVAILABLE,
    "WRITE_MODEL_LOCKED": StatusCode.UNAVAILABLE,
    "STORAGE_FULL": StatusCode.UNAVAILABLE,
    # queries
    "VIEW_REBUILDING": StatusCode.UNAVAILABLE,
    "VIEW_BEHIND": StatusCode.UNAVAILABLE,
    "VIEW_PARKED": StatusCode.UNAVAILABLE,
    "TOO_MANY_WAITS": StatusCode.RESOURCE_EXHAUSTED,
    "TOO_MANY_WATCHES": StatusCode.RESOURCE_EXHAUSTED,
    "READ_NOT_RECORDED": StatusCode.UNAVAILABLE,
    "VIEW_ARCHIVED": StatusCode.NOT_FOUND,
    "HISTORY_ARCHIVED": StatusCode.NOT_FOUND,
    "VIEW_NEWER": StatusCode.UNAVAILABLE,
    "READ_MODEL_UNAVAILABLE": StatusCode.UNAVAILABLE,
    "VIEW_UNREADABLE": StatusCode.DATA_LOSS,
    "TOKEN_OUTDATED": StatusCode.FAILED_PRECONDITION,
    "RESPONSE_TOO_LARGE": StatusCode.FAILED_PRECONDITION,  # a retry would get the same
    # the server
    "STOPPING": StatusCode.UNAVAILABLE,
    "INTERNAL": StatusCode.INTERNAL,
}


class RpcError(Exception):
    """Ends a call with a gRPC status and an ErrorInfo.

    Args:
        reason: UPPER_SNAKE_CASE; a key of STATUS, unless `code` is given.
        message: text for people.
        metadata: facts about the error; keys in camelCase or snake_case.
        retry_after: seconds after which a retry makes sense, or None.
        violations: field path to error text, for invalid requests.
        code: the status of a reason that is not in STATUS.
        domain: the domain of the reason; by default that of the infrastructure.
    """

    domain = "diptych"

    def __init__(
        self,
        reason: str,
        message: str,
        metadata: Mapping[str, str] | None = None,
        *,
        retry_after: float | None = None,
        violations: Mapping[str, str] | None = None,
        code: StatusCode | None = None,
        domain: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code or STATUS[reason]
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after
        self.violations = dict(violations or {})
        self.domain = domain or self.domain

    @classmethod
    def of_rule(
        cls,
        context: str,
        reason: str,
        metadata: Mapping[str, str],
        code: StatusCode = StatusCode.FAILED_PRECONDITION,
    ) -> "RpcError":
        """Return the error of a request that breaks a rule of a context.

        Args:
            context: the context's name, for instance `ordering`.
            reason: for instance `ORDER_ALREADY_CANCELLED`.
            metadata: the facts behind the decision.
            code: the gRPC status.
        """
        details = ", ".join(f"{key}={value}" for key, value in metadata.items())
        message = reason.replace("_", " ").lower() + (f" ({details})" if details else "")
        return cls(reason, message, metadata, code=code, domain=f"{context}.diptych")

    @classmethod
    def not_found(cls, context: str, reason: str, metadata: Mapping[str, str]) -> "RpcError":
        """Return the error of a request for a missing record of a context."""
        return cls.of_rule(context, reason, metadata, StatusCode.NOT_FOUND)
