"""The NOT_FOUND errors of a context."""

import msgspec

from runtime.grpc.rpc_error import RpcError


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
        metadata = {name: value for name, value in zip(self.names, values, strict=True) if value}
        return RpcError.not_found(self.context, self.reason, metadata)
