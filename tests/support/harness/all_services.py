"""The services of all processes, as they say which methods compare owners, with other handlers."""

from typing import Any

from diptych.operations.v1 import operations_service_pb2 as operations
from diptych.sagas.v1 import query_service_pb2 as sagas

from command_server.service import command_services
from query_server.service import QueryContext, query_service
from runtime.grpc.method import Handler
from runtime.grpc.routes import Service
from tests.support.harness.contexts import CONTEXTS, QUERY_CONTEXTS

_NOTHING: Any = None


class _Anything(dict[Any, Any]):
    """A mapping that has every key."""

    def __missing__(self, _: object) -> Any:
        return None


def list_services(handler: Handler) -> list[Service]:
    """Return all services with this handler for every method."""
    services = [
        service for context in CONTEXTS for service in command_services(context, _NOTHING, _NOTHING, _NOTHING)
    ]
    services += map(_make_query_service, QUERY_CONTEXTS)
    services += [
        Service(operations.DESCRIPTOR.services_by_name["OperationsService"], {}),
        Service(sagas.DESCRIPTOR.services_by_name["QueryService"], {}),
    ]
    return [
        Service(
            service.descriptor,
            dict.fromkeys(service.descriptor.methods_by_name, handler),
            service.compares_owners,
        )
        for service in services
    ]


def _make_query_service(context: QueryContext) -> Service:
    return query_service(context, _Anything(), _NOTHING, _NOTHING, _Anything())
