"""`Explain`."""

from collections.abc import Mapping, Sequence
from typing import Any

from diptych.operations.v1 import operations_service_pb2 as protocol
from diptych.operations.v1.explanation_pb2 import Explanation
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from command_server.kernel.context import Context as WriteContext
from contracts.manifest import Manifest
from operations_server.explanations.acts import ActReader
from operations_server.explanations.audit import AuditReader
from operations_server.explanations.causes import CauseFinder
from operations_server.explanations.command_words import EventWords
from operations_server.explanations.explainer import Explainer
from operations_server.explanations.followers import Follower
from operations_server.explanations.record_reader import RecordReader
from operations_server.explanations.saga_facts import SagaFactReader
from operations_server.explanations.subjects import read_moment
from operations_server.explanations.views import ViewReader
from operations_server.records.database import report_unavailable
from operations_server.records.request_reader import RequestReader
from process_manager.saga import Saga
from projector.projection import Projection
from runtime.grpc.method import Context, Handler
from runtime.grpc.response_size import PageBudget
from runtime.process.contexts import load_parts
from runtime.subject_keys import SubjectKeys


def create_explainer(
    manifests: Sequence[Manifest],
    database: AsyncEngine,
    redis: Redis,
    requests: RequestReader,
    keys: SubjectKeys | None = None,
) -> Explainer:
    """Return an explainer of the aggregates of these contexts.

    Args:
        manifests: the contexts.
        database: the tables of all processes.
        redis: the views.
        requests: reads the audit by its index.
        keys: open events; None to leave what is sealed as it is.

    Raises:
        StartError: a context lacks a module that its manifest names.
    """
    contexts = load_parts(manifests, "commands", "CONTEXT", WriteContext)
    projections = load_parts(manifests, "projections", "PROJECTIONS", Projection)
    records, audit = RecordReader(database, keys), AuditReader(database, requests)
    words = EventWords({context.name: context.events for context in contexts})
    sagas = SagaFactReader(database, load_parts(manifests, "sagas", "SAGAS", Saga))
    views = ViewReader(redis, (projection.view for projection in projections))
    stream_types = {
        aggregate.stream_type
        for context in contexts
        for decider in context.deciders
        for aggregate in decider.aggregates
    }
    follower, causes = Follower(records, views, sagas, words), CauseFinder(records, audit, sagas, words)
    return Explainer(records, audit, follower, causes, ActReader(database), stream_types)


def create_handlers(explainer: Explainer) -> Mapping[str, Handler]:
    """Return the handlers by the names of their methods."""

    async def explain(request: protocol.ExplainRequest, _context: Context) -> Any:
        with report_unavailable():
            explanations = await explainer.explain(request.subject.strip(), read_moment(request))
        return protocol.ExplainResponse(explanations=fit_into_response(explanations))

    return {"Explain": explain}


def fit_into_response(explanations: Sequence[Explanation]) -> Sequence[Explanation]:
    """Take entries out of explanations that would make the response too large."""
    budget = PageBudget()
    for explanation in explanations:
        if not budget.take(explanation.ByteSize()):
            explanation.omitted_entry_count += len(explanation.entries)
            explanation.ClearField("entries")
    return explanations
