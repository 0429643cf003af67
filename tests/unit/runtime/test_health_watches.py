from typing import cast

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from runtime.grpc.health import Health
from runtime.grpc.method import Context


async def test_a_stop_while_the_last_status_is_sent_is_not_missed() -> None:
    health, context = Health(), cast(Context, None)
    health.set_serving(True)
    watch = health.Watch(HealthCheckRequest(), context)
    assert (await anext(watch)).status == HealthCheckResponse.SERVING
    health.stop()
    assert [response.status async for response in watch] == [HealthCheckResponse.NOT_SERVING]
