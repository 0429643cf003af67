"""`ListGenerations`, `BuildGeneration` and the other methods about generations of projections."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from diptych.operations.v1 import generations_pb2 as messages
from diptych.operations.v1 import operations_service_pb2 as protocol
from google.protobuf.json_format import MessageToDict
from msgspec import structs
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.generations import GenerationRecord, GenerationsUnreadable
from operations_server.acts import OperatorActs
from operations_server.generations.comparison import Comparison
from operations_server.generations.store import GenerationState, GenerationStore
from operations_server.parked.handlers import report_unavailable
from operations_server.records.content import read_content
from projector.generations import BUILD_LIMIT
from projector.projection import Projection
from projector.projection_code import compute_projection_version
from runtime import jetstream
from runtime.grpc import caller
from runtime.grpc.method import Context, Handler
from runtime.grpc.rpc_error import RpcError

PAUSED = "an operator has paused it"
MEMORY_MARGIN = 1.1
"""A generation takes this much more than the one that serves, to be on the safe side."""
RECORD = text("""
INSERT INTO projection_switches
  (projection, from_generation, to_generation, subject, reason, forced, comparison)
VALUES
  (:projection, :from_generation, :to_generation, :subject, :reason, :forced, CAST(:comparison AS jsonb))
""")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The generations of a projection that a request is about."""

    store: GenerationStore
    states: Sequence[GenerationState]

    @property
    def serving(self) -> GenerationState:
        return self.states[0]

    def find(self, name: str) -> GenerationState:
        """Return a generation that does not serve; the one begun last if the name is empty.

        Raises:
            RpcError: `GENERATION_NOT_FOUND`.
        """
        for state in self.states[1:]:
            if name in ("", state.view.generation):
                return state
        raise self.unknown_error(name)

    def unknown_error(self, name: str) -> RpcError:
        metadata = {"projection": self.serving.view.projection, "generation": name}
        return RpcError.not_found("operations", "GENERATION_NOT_FOUND", metadata)


class GenerationsApi:
    """The generations of all projections.

    Args:
        redis: the connection.
        database: in the role of the operations server, to record switches.
        nats: to read the stream's extent.
        projections: of all contexts.
    """

    def __init__(
        self,
        redis: Redis,
        database: AsyncEngine,
        nats: jetstream.Connection,
        projections: Sequence[Projection[Any]],
    ) -> None:
        self._redis, self._database, self._nats = redis, database, nats
        self._projections = {each.view.projection: each for each in projections}

    async def list_all(
        self, request: protocol.ListGenerationsRequest, _context: Context
    ) -> protocol.ListGenerationsResponse:
        chosen = await self._read(request.projection)
        return protocol.ListGenerationsResponse(generations=await self._describe(chosen.states))

    async def build(
        self, request: protocol.BuildGenerationRequest, _context: Context
    ) -> protocol.BuildGenerationResponse:
        chosen = await self._read(request.projection)
        for state in chosen.states[1:]:
            if state.record and not state.record.served_until:
                raise RpcError.of_rule(
                    "operations",
                    "GENERATION_EXISTS",
                    {"projection": request.projection, "generation": state.view.generation},
                )
        needed = round(await chosen.store.estimate_bytes(chosen.serving.view) * MEMORY_MARGIN)
        memory = await self._redis.info("memory")
        free = int(memory["maxmemory"]) * BUILD_LIMIT // 100 - int(memory["used_memory"])
        if memory["maxmemory"] and needed > free and not request.ignore_memory:
            sizes = {"needed_bytes": str(needed), "free_bytes": str(max(0, free))}
            raise RpcError.of_rule(
                "operations", "MEMORY_INSUFFICIENT", {"projection": request.projection, **sizes}
            )
        name = await chosen.store.begin(chosen.states, request.rate or None)
        if name is None:
            raise RpcError.of_rule("operations", "GENERATION_EXISTS", {"projection": request.projection})
        return protocol.BuildGenerationResponse(generation=name, needed_bytes=needed)

    async def pace(
        self, request: protocol.PaceGenerationRequest, _context: Context
    ) -> protocol.PaceGenerationResponse:
        chosen = await self._read(request.projection)
        state = chosen.find(request.generation)
        record = structs.replace(state.record or GenerationRecord(), paused=PAUSED if request.paused else "")
        if request.HasField("rate"):
            record = structs.replace(record, rate=request.rate or None)
        if not await chosen.store.replace(state.view, record):  # it was pruned meanwhile
            raise chosen.unknown_error(state.view.generation)
        (generation,) = await self._describe([replace(state, record=record)])
        return protocol.PaceGenerationResponse(generation=generation)

    async def compare(
        self, request: protocol.CompareGenerationsRequest
    ) -> AsyncIterator[protocol.CompareGenerationsResponse]:
        content = read_content(request)
        chosen, other = await self._choose_ready(request.projection, request.generation)
        comparison = Comparison(self._redis, chosen.serving.view, other.view, request.sample, content)
        async for compared in comparison.run():
            yield protocol.CompareGenerationsResponse(compared_views=compared)
        yield protocol.CompareGenerationsResponse(
            compared_views=comparison.compared, comparison=_describe_comparison(chosen, other, comparison)
        )

    async def switch(
        self, request: protocol.SwitchGenerationRequest
    ) -> AsyncIterator[protocol.SwitchGenerationResponse]:
        chosen, other = await self._choose_ready(request.projection, request.generation)
        comparison = Comparison(self._redis, chosen.serving.view, other.view, request.sample)
        async for compared in comparison.run():
            yield protocol.SwitchGenerationResponse(compared_views=compared)
        described = _describe_comparison(chosen, other, comparison)
        refused = [each for each in comparison.counts if each not in request.accepted_fields]
        if refused and not request.force:
            counts = ", ".join(f"{field} ({comparison.counts[field]})" for field in sorted(refused))
            raise RpcError.of_rule(
                "operations", "DIFFERENCES_NOT_ACCEPTED", {"projection": request.projection, "fields": counts}
            )
        await self._switch(chosen, other, request, described)
        yield protocol.SwitchGenerationResponse(compared_views=comparison.compared, comparison=described)

    async def roll_back(
        self, request: protocol.RollBackGenerationRequest, _context: Context
    ) -> protocol.RollBackGenerationResponse:
        chosen = await self._read(request.projection)
        served = [each for each in chosen.states[1:] if each.record and each.record.served_until]
        if not served:
            raise chosen.unknown_error("none that served before")
        last = max(served, key=lambda each: each.record.served_until if each.record else 0)
        await self._switch(chosen, last, request, None)
        return protocol.RollBackGenerationResponse(generation=last.view.generation)

    async def prune(
        self, request: protocol.PruneGenerationRequest, _context: Context
    ) -> protocol.PruneGenerationResponse:
        chosen = await self._read(request.projection)
        serves = request.generation == chosen.serving.view.generation
        view = chosen.serving.view if serves else chosen.find(request.generation).view
        deleted = await chosen.store.prune(view)
        if deleted is None:
            metadata = {"projection": request.projection, "generation": request.generation}
            raise RpcError.of_rule("operations", "GENERATION_SERVES", metadata)
        return protocol.PruneGenerationResponse(deleted_keys=deleted)

    async def _switch(
        self,
        chosen: Chosen,
        other: GenerationState,
        request: Any,
        comparison: messages.GenerationComparison | None,
    ) -> None:
        """Record a switch, then do it: one that is on record and was not done is seen by the next one."""
        values = {
            "projection": request.projection,
            "from_generation": chosen.serving.view.generation,
            "to_generation": other.view.generation,
            "subject": caller.current().subject,
            "reason": request.reason,
            "forced": bool(getattr(request, "force", False)),
            "comparison": json.dumps(MessageToDict(comparison)) if comparison else None,
        }
        async with self._database.begin() as connection:
            await connection.execute(RECORD, values)
            if not await chosen.store.switch(chosen.serving, other):
                raise RpcError.of_rule(
                    "operations",
                    "GENERATION_NOT_READY",
                    {"projection": request.projection, "generation": other.view.generation},
                )

    async def _choose_ready(self, projection: str, name: str) -> tuple[Chosen, GenerationState]:
        chosen = await self._read(projection)
        other = chosen.find(name)
        if not other.ready:
            raise RpcError.of_rule(
                "operations",
                "GENERATION_NOT_READY",
                {"projection": projection, "generation": other.view.generation},
            )
        return chosen, other

    async def _read(self, projection: str) -> Chosen:
        if projection not in self._projections:
            raise RpcError.not_found("operations", "PROJECTION_UNKNOWN", {"projection": projection})
        store = GenerationStore(self._redis, self._projections[projection].view)
        try:
            return Chosen(store, await store.read())
        except GenerationsUnreadable as error:
            raise RpcError("READ_MODEL_UNAVAILABLE", f"its generations cannot be read: {error}") from error

    async def _describe(self, states: Sequence[GenerationState]) -> list[messages.Generation]:
        code = compute_projection_version(self._projections[states[0].view.projection])
        epoch, last = await self._read_end(states)
        return [_describe(state, code, epoch, last) for state in states]

    async def _read_end(self, states: Sequence[GenerationState]) -> tuple[str, int]:
        """Return the epoch and the last sequence of the stream; none if all are built, or NATS is away."""
        if all(state.ready for state in states):
            return "", 0
        try:
            async with asyncio.timeout(1.0):
                identity = await jetstream.read_stream_identity(self._nats.js)
        except Exception:
            identity = None
        return (identity.epoch, identity.last_sequence) if identity else ("", 0)


def _describe(state: GenerationState, code: str, epoch: str, last_sequence: int) -> messages.Generation:
    message = messages.Generation(
        name=state.view.generation,
        serves=state.serves,
        ready=bool(state.ready),
        build_progress=state.compute_progress(epoch, last_sequence),
        code_changed=bool(state.code) and state.code != code,
        parked_aggregates=state.parked,
    )
    if record := state.record:
        message.rate, message.pause = record.rate or 0, record.paused
        if record.begun:
            message.begin_time.FromMilliseconds(record.begun)
        if record.served_until:
            message.served_until_time.FromMilliseconds(record.served_until)
    return message


def _describe_comparison(
    chosen: Chosen, other: GenerationState, comparison: Comparison
) -> messages.GenerationComparison:
    message = messages.GenerationComparison(
        projection=chosen.serving.view.projection,
        serving_generation=chosen.serving.view.generation,
        generation=other.view.generation,
        compared_views=comparison.compared,
        differing_views=comparison.differing,
    )
    for field, count in comparison.counts.most_common():
        difference = message.differences.add(field=field, count=count)
        for id_, serving_value, value in comparison.examples[field]:
            difference.examples.add(id=id_, serving_value=serving_value, value=value)
    return message


def create_handlers(api: GenerationsApi, acts: OperatorActs) -> Mapping[str, Handler]:
    """Return the handlers by method."""

    def act(name: str, handler: Handler) -> Handler:
        return acts.record(name, _report(handler), _name_target)

    return {
        "ListGenerations": _report(api.list_all),
        "BuildGeneration": act("BuildGeneration", api.build),
        "PaceGeneration": act("PaceGeneration", api.pace),
        "CompareGenerations": _report(_stream(api.compare)),
        "SwitchGeneration": act("SwitchGeneration", _stream(api.switch)),
        "RollBackGeneration": act("RollBackGeneration", api.roll_back),
        "PruneGeneration": act("PruneGeneration", api.prune),
    }


def _report(handler: Handler) -> Handler:
    async def handle(request: Any, context: Context) -> Any:
        with report_unavailable():
            return await handler(request, context)

    return handle


def _stream(responses: Callable[[Any], AsyncIterator[Any]]) -> Handler:
    async def handle(request: Any, context: Context) -> None:
        async for response in responses(request):
            await context.write(response)

    return handle


def _name_target(request: Any) -> str:
    """Return what an act is about, for people."""
    generation = getattr(request, "generation", "")
    return f"{request.projection} {generation}".strip()
