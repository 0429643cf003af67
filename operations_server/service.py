"""`diptych.operations.v1.OperationsService`: the handlers of its parts, gathered."""

from collections.abc import Mapping
from typing import Any

from diptych.operations.v1 import operations_service_pb2 as protocol
from grpc import StatusCode

from runtime.grpc.method import Context, Handler
from runtime.grpc.rpc_error import RpcError
from runtime.grpc.server import Service

# The methods whose handlers are still to come. Remove yours from this table when you add its handler to
# `__main__.py`; with the last one remove the table and `_reject_not_yet`.
NOT_YET = (
    *("GetStatus", "ListProjections", "ListParkedAggregates", "RetryParkedAggregates", "ListRefusedCalls"),
)
_REASON = "NOT_YET"


def create_service(*parts: Mapping[str, Handler]) -> Service:
    """Return the service.

    Args:
        parts: handlers by the names of their methods; together those of all methods.
    """
    handlers: dict[str, Handler] = dict.fromkeys(NOT_YET, _reject_not_yet)
    for part in parts:
        handlers |= part
    return Service(protocol.DESCRIPTOR.services_by_name["OperationsService"], handlers)


async def _reject_not_yet(_request: Any, _context: Context) -> None:
    raise RpcError(_REASON, "this method has no handler yet", code=StatusCode.UNIMPLEMENTED)
