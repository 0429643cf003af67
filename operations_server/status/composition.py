"""Composes the reading of the system."""

from collections.abc import Callable, Sequence
from typing import Any

from contracts.manifest import Manifest
from operations.processes import COMMAND_SERVER, PROCESS_MANAGER, PROJECTOR, QUERY_SERVER, RELAY
from operations_server.status.health_checks import HealthChecks
from operations_server.status.read_model import ReadModel
from operations_server.status.system import SystemStatus
from operations_server.status.write_model import WriteModel
from operations_server.stores import Stores
from process_manager.saga import Saga
from projector.projection import Projection
from projector.projection_code import compute_projection_version
from runtime.process.contexts import load_parts, name_group
from runtime.process.settings import Settings
from runtime.process_reports.health import Reports
from runtime.process_reports.postgres_reports import PostgresReports
from runtime.process_reports.redis_reports import RedisReports
from runtime.tls.client_tls import ClientTls


def create_system(
    settings: Settings,
    manifests: Sequence[Manifest],
    stores: Stores,
    get_key_ring_error: Callable[[], str],
    tls: ClientTls | None = None,
) -> SystemStatus:
    """Return the reading of the processes and stores that these contexts need."""
    projections: list[Projection[Any]] = load_parts(manifests, "projections", "PROJECTIONS", Projection)
    sagas: list[Saga[Any]] = load_parts(manifests, "sagas", "SAGAS", Saga)
    views = [projection.view for projection in projections]
    codes = {each.view.projection: compute_projection_version(each) for each in projections}
    kinds = [COMMAND_SERVER, RELAY]
    kinds += [PROJECTOR, QUERY_SERVER] if projections else []
    kinds += [PROCESS_MANAGER] if sagas else []
    return SystemStatus(
        views,
        [saga.name for saga in sagas],
        HealthChecks(settings, kinds, tls),
        WriteModel(stores.status_database),
        ReadModel(stores.status_redis, views, name_group(manifests, "projections"), codes),
        Reports(
            settings,
            PostgresReports(stores.status_database).read,
            RedisReports(stores.status_redis.execute_command).read,
        ),
        stores.nats,
        get_key_ring_error,
    )
