"""The parts of all contexts of this repository, as the processes load them."""

from typing import Any

from command_server.kernel.context import Context
from contracts.manifest import find_manifests
from operations.verify.model import Aggregate, SagaSpec
from process_manager.saga import Saga
from projector.projection import Projection
from query_server.service import QueryContext
from runtime.process.contexts import load_parts

MANIFESTS = list(find_manifests().values())
CONTEXTS = load_parts(MANIFESTS, "commands", "CONTEXT", Context)
QUERY_CONTEXTS = load_parts(MANIFESTS, "queries", "CONTEXT", QueryContext)
PROJECTIONS: list[Projection[Any]] = load_parts(MANIFESTS, "projections", "PROJECTIONS", Projection)
SAGAS: list[Saga[Any]] = load_parts(MANIFESTS, "sagas", "SAGAS", Saga)
AGGREGATES = load_parts(MANIFESTS, "verification", "AGGREGATES", Aggregate)
SAGA_SPECS = load_parts([each for each in MANIFESTS if each.sagas], "verification", "SAGAS", SagaSpec)
VIEWS = [projection.view for projection in PROJECTIONS]
