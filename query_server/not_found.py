"""The NOT_FOUND errors of a context, and those of records that exist and are archived."""

from datetime import UTC, datetime

import msgspec

from runtime.grpc.rpc_error import RpcError


class Archived(msgspec.Struct, frozen=True):
    """The tombstone of a view."""

    version: int
    """The view's version."""
    millis: int
    """When it was archived, in milliseconds since 1970."""


class NotFound(msgspec.Struct, frozen=True):
    """A kind of record that may be missing.

    It is declared once and costs nothing until a record is missing.
    """

    context: str
    """For instance `ordering`."""
    reason: str
    """For instance `ORDER_NOT_FOUND`."""
    names: tuple[str, ...]
    """The request's fields that identify a record, for instance `("order_id",)`."""

    def error(self, *values: str) -> RpcError:
        """Return the error of a missing record.

        Args:
            values: of the fields in `names`; an empty one, which identifies nothing, is left out.
        """
        return RpcError.not_found(self.context, self.reason, self._name(values))

    def archived_error(self, archived: Archived, *values: str) -> RpcError:
        """Return the error of a record whose view is archived: it exists, but cannot be read."""
        time = datetime.fromtimestamp(archived.millis / 1000, UTC).isoformat(timespec="milliseconds")
        facts = {"version": str(archived.version), "archive_time": time.replace("+00:00", "Z")}
        text = "the record exists, but its view is archived"
        return RpcError("VIEW_ARCHIVED", text, self._name(values) | facts)

    def archived_history_error(self, first: int, *values: str) -> RpcError:
        """Return the error of a record whose history lacks what was requested.

        Args:
            first: the first version whose entry is not archived.
            values: of the fields in `names`.
        """
        facts = {"archived_before_version": str(first)}
        return RpcError(
            "HISTORY_ARCHIVED", "this part of the history is archived", self._name(values) | facts
        )

    def _name(self, values: tuple[str, ...]) -> dict[str, str]:
        return {name: value for name, value in zip(self.names, values, strict=True) if value}
