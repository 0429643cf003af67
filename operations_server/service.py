"""`diptych.operations.v1.OperationsService`: the handlers of its parts, gathered."""

from collections.abc import Mapping

from diptych.operations.v1 import operations_service_pb2 as protocol

from runtime.grpc.method import Handler
from runtime.grpc.server import Service


def create_service(*parts: Mapping[str, Handler]) -> Service:
    """Return the service.

    Args:
        parts: handlers by the names of their methods; together those of all methods.
    """
    handlers = {name: handler for part in parts for name, handler in part.items()}
    return Service(protocol.DESCRIPTOR.services_by_name["OperationsService"], handlers)
