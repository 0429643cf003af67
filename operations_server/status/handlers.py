"""`GetStatus` and `ListProjections`."""

from collections.abc import Mapping

from diptych.operations.v1 import operations_service_pb2 as protocol

from operations_server.status.messages import build_projections, build_status
from operations_server.status.system import SystemStatus
from runtime.grpc.method import Context, Handler
from runtime.grpc.rpc_error import RpcError


def create_handlers(system: SystemStatus) -> Mapping[str, Handler]:
    """Return the handlers by method."""

    async def get_status(
        _request: protocol.GetStatusRequest, _context: Context
    ) -> protocol.GetStatusResponse:
        return protocol.GetStatusResponse(status=build_status(await system.read()))

    async def list_projections(
        request: protocol.ListProjectionsRequest, _context: Context
    ) -> protocol.ListProjectionsResponse:
        projections = build_projections(await system.read(), request.projection)
        if request.projection and not projections:
            raise RpcError.not_found("operations", "PROJECTION_UNKNOWN", {"projection": request.projection})
        return protocol.ListProjectionsResponse(projections=projections)

    return {"GetStatus": get_status, "ListProjections": list_projections}
