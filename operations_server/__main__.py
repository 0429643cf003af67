"""The composition root of the operations server."""

from collections.abc import Sequence

from contracts.key_ring import Purpose
from contracts.manifest import Manifest
from contracts.subject_keys import RingWrapper
from operations.processes import OPERATIONS_SERVER
from operations_server import refused_calls, stores
from operations_server.acts import OperatorActs
from operations_server.audit import proofs
from operations_server.audit.proofs import EventProofs
from operations_server.audit.sealer import Sealer, create_sealer_engine
from operations_server.dead_letters.handlers import DeadLetterHandlers
from operations_server.dead_letters.letter_events import LetterEvents
from operations_server.dead_letters.letters import DeadLetters
from operations_server.dead_letters.retries import LetterRetries
from operations_server.dead_letters.skips import LetterSkips
from operations_server.explanations import handlers as explanations
from operations_server.generations import handlers as generations
from operations_server.generations.handlers import GenerationsApi
from operations_server.parked import handlers as parked
from operations_server.parked.handlers import ParkedAggregates
from operations_server.parked.parked_list import ParkedList
from operations_server.records.handlers import create_handlers as create_record_handlers
from operations_server.records.records import Records
from operations_server.refused_calls import RefusedCalls
from operations_server.sagas.sagas import Sagas
from operations_server.service import create_service
from operations_server.status import handlers as status
from operations_server.status.composition import create_system
from operations_server.system_gauges import SystemGauges
from projector.projection import Projection
from runtime.database_user import guard_start
from runtime.grpc import server
from runtime.grpc.call_limit import CallLimit
from runtime.grpc.refused_call_table import RefusedCallTable
from runtime.grpc.request_tokens import RequestTokens
from runtime.process import workers
from runtime.process.contexts import load_parts
from runtime.process.key_file import KeyFile
from runtime.process.lifecycle import Lifecycle, read_contexts, read_settings
from runtime.process_reports.redis_reports import RedisReports
from runtime.process_reports.reporter import Reporter
from runtime.process_reports.window import Window
from runtime.subject_keys import SubjectKeys
from runtime.tls.client_tls import open_client_tls

TAILS, TAILS_PER_CALLER = 50, 20
"""The maximum number of tails and exports at the same time, and of those of one caller."""


async def main(lifecycle: Lifecycle, manifests: Sequence[Manifest]) -> None:
    """Answer operators until the process stops."""
    settings = lifecycle.settings
    keys = KeyFile(settings.keys, (Purpose.PAGE_TOKENS, Purpose.SEAL, Purpose.FEED))
    lifecycle.spawn(keys.run(), "key ring")
    if (tls := open_client_tls(settings)) is not None:
        lifecycle.spawn(tls.run(), "changes of files")
    tokens = RequestTokens(keys.get_ring)
    sagas = Sagas(settings.database_url, manifests)
    subject_keys = SubjectKeys(RingWrapper(keys.get_ring))
    records = Records(settings.database_url, manifests, lifecycle.stopping, [sagas.segments], subject_keys)
    lifecycle.spawn(records.index_builder.run(lifecycle.stopping), "index builder")
    sealer = Sealer(create_sealer_engine(settings.database_url), keys.get_ring)
    lifecycle.spawn(sealer.run(), "sealer")
    limit = CallLimit("TOO_MANY_WATCHES", "tails and exports", TAILS_PER_CALLER, TAILS)
    async with stores.connect(settings, keys.get_ring) as connections:
        await guard_start(lifecycle, connections.database)
        acts = OperatorActs(connections.database)
        system = create_system(settings, manifests, connections, lambda: keys.error, tls)
        aggregates = ParkedAggregates(connections.redis, system.views, tokens)
        projections = load_parts(manifests, "projections", "PROJECTIONS", Projection)
        generations_api = GenerationsApi(
            connections.redis, connections.database, connections.nats, projections
        )
        saga_acts = sagas.create_acts(connections.database, connections.nats)
        retries = LetterRetries(connections.redis, system.views, saga_acts)
        letters = DeadLetterHandlers(
            DeadLetters(ParkedList(connections.redis, system.views), sagas.letters),
            LetterEvents(records.database),
            retries,
            LetterSkips(records.database, connections.redis, retries),
            tokens,
        )
        lifecycle.spawn(SystemGauges(system).run(), "metrics of the system")
        write = RedisReports(connections.redis.execute_command).write
        reporter = Reporter(OPERATIONS_SERVER.name, [each.name for each in manifests], Window(), write)
        lifecycle.spawn(reporter.run(), "process report")
        explainer = explanations.create_explainer(
            manifests, connections.database, connections.redis, records.requests, subject_keys
        )
        edge = server.build(
            settings,
            [
                create_service(
                    status.create_handlers(system),
                    letters.create(acts),
                    parked.create_handlers(aggregates, acts),
                    generations.create_handlers(generations_api, acts),
                    refused_calls.create_handlers(RefusedCalls(connections.database, tokens)),
                    explanations.create_handlers(explainer),
                    proofs.create_handlers(EventProofs(records.database)),
                    create_record_handlers(records, tokens, limit),
                    sagas.create_handlers(connections.database, saga_acts, tokens, acts),
                )
            ],
            address=settings.operations_address,
            probe=is_ready,
            record_refused_call=RefusedCallTable(connections.database).record,
        )
        await edge.serve(lifecycle)
        await acts.wait_ended()
        await system.close()
    await sealer.close()
    await records.close()
    await sagas.close()


async def is_ready() -> bool:
    """Return True: the process serves whatever is unreachable, because it exists to say so."""
    return True


if __name__ == "__main__":
    workers.run_single(main, "operations_server", read_settings(), read_contexts())
