"""`ListGenerations`, `BuildGeneration` and the other methods about generations of projections."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

from diptych.operations.v1 import generations_pb2 as messages
from diptych.operations.v1 import operations_service_pb2 as protocol
from msgspec import structs
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.generations import GenerationRecord, GenerationsUnreadable, get_number
from operations_server.acts import DONE, CallerLeft, OperatorActs
from operations_server.generations.comparison import Comparison
from operations_server.generations.store import GenerationState, GenerationStore
from operations_server.generations.switch_record import SwitchRecord
from operations_server.parked.handlers import report_unavailable
from operations_server.records.content import read_content
from projector.generations import BUILD_LIMIT
from projector.projection import Projection
from projector.projection_code import compute_projection_version
from runtime import jetstream
from runtime.grpc.method import Context, Handler
from runtime.grpc.rpc_error import RpcError

PAUSED = "an operator has paused it"
MEMORY_MARGIN = 1.1
"""A generation takes this much more than the one that serves, to be on the safe side."""
NAME = re.compile(r"\d{1,9}(\.\d{1,9})?")
"""The form of the name of a generation."""


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
            RpcError: `GENERATION_NOT_FOUND`, `GENERATION_SERVES`.
        """
        if name == self.serving.view.generation:
            raise RpcError.of_rule("operations", "GENERATION_SERVES", self.describe(name))
        for state in self.states[1:]:
            if name in ("", state.view.generation):
                return state
        raise self.unknown_error(name or "none beside the one that serves")

    def find_last_built(self, name: str) -> GenerationState:
        """Return a generation that does not serve; the one built last if the name is empty.

        That is an error if it serves, so that a repeated request never means the one that served before.

        Raises:
            RpcError: `GENERATION_NOT_FOUND`, `GENERATION_SERVES`.
        """
        names = [state.view.generation for state in self.states]
        return self.find(name or (max(names, key=get_number) if len(names) > 1 else ""))

    def unknown_error(self, name: str) -> RpcError:
        return RpcError.not_found("operations", "GENERATION_NOT_FOUND", self.describe(name))

    def describe(self, generation: str) -> dict[str, str]:
        """Return the metadata of an error about a generation."""
        return {"projection": self.serving.view.projection, "generation": generation}


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
        self._redis, self._nats = redis, nats
        self._record = SwitchRecord(database)
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
                    "operations", "GENERATION_EXISTS", chosen.describe(state.view.generation)
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
            raise RpcError.of_rule("operations", "GENERATIONS_CHANGED", chosen.describe(""))
        return protocol.BuildGenerationResponse(generation=name, needed_bytes=needed)

    async def pace(
        self, request: protocol.PaceGenerationRequest, _context: Context
    ) -> protocol.PaceGenerationResponse:
        chosen = await self._read(request.projection)
        state = chosen.find_last_built(request.generation)
        record = structs.replace(state.record or GenerationRecord(), paused=PAUSED if request.paused else "")
        if request.HasField("rate"):
            record = structs.replace(record, rate=request.rate or None)
        if not await chosen.store.replace(state, record):
            raise RpcError.of_rule(
                "operations", "GENERATIONS_CHANGED", chosen.describe(state.view.generation)
            )
        (generation,) = await self._describe([replace(state, record=record)])
        return protocol.PaceGenerationResponse(generation=generation)

    async def compare(
        self, request: protocol.CompareGenerationsRequest
    ) -> AsyncIterator[protocol.CompareGenerationsResponse]:
        content = read_content(request)
        chosen = await self._read(request.projection)
        other = self._check_ready(chosen, chosen.find(request.generation))
        comparison = Comparison(self._redis, chosen.serving.view, other.view, request.sample, content)
        async for compared in comparison.run():
            yield protocol.CompareGenerationsResponse(compared_views=compared)
        yield protocol.CompareGenerationsResponse(
            compared_views=comparison.compared, comparison=_describe_comparison(chosen, other, comparison)
        )

    async def switch(
        self, request: protocol.SwitchGenerationRequest
    ) -> AsyncIterator[protocol.SwitchGenerationResponse]:
        chosen = await self._read(request.projection)
        other = self._check_ready(chosen, chosen.find_last_built(request.generation))
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
        yield protocol.SwitchGenerationResponse(compared_views=comparison.compared)  # unless the caller left
        await self._switch(chosen, other, request, described)
        yield protocol.SwitchGenerationResponse(compared_views=comparison.compared, comparison=described)

    async def roll_back(
        self, request: protocol.RollBackGenerationRequest, _context: Context
    ) -> protocol.RollBackGenerationResponse:
        chosen = await self._read(request.projection)
        served = [
            (each.record.served_until, each)
            for each in chosen.states[1:]
            if each.record and each.record.served_until and not each.record.rolled_back
        ]
        if not served:
            raise chosen.unknown_error("none that served before")
        _, last = max(served, key=itemgetter(0))
        await self._switch(chosen, last, request, None)
        return protocol.RollBackGenerationResponse(generation=last.view.generation)

    async def prune(
        self, request: protocol.PruneGenerationRequest, _context: Context
    ) -> protocol.PruneGenerationResponse:
        chosen = await self._read(request.projection)
        name = request.generation
        names = [state.view.generation for state in chosen.states]
        if not NAME.fullmatch(name):
            raise chosen.unknown_error(name)
        view = chosen.serving.view.at(name)
        deleted = await chosen.store.prune(view, has_record=name in names)
        if deleted is None:
            if name == names[0]:
                raise RpcError.of_rule("operations", "GENERATION_SERVES", chosen.describe(name))
            raise RpcError.of_rule("operations", "GENERATIONS_CHANGED", chosen.describe(name))
        if not deleted and name not in names:  # nothing is left of an earlier deletion either
            raise chosen.unknown_error(name)
        return protocol.PruneGenerationResponse(deleted_keys=deleted)

    async def _switch(
        self,
        chosen: Chosen,
        other: GenerationState,
        request: Any,
        comparison: messages.GenerationComparison | None,
    ) -> None:
        """Record a switch, do it, then record its outcome.

        Raises:
            RpcError: `GENERATIONS_CHANGED`, `GENERATION_NOT_READY`, `WRITE_MODEL_UNAVAILABLE`.
        """
        name = other.view.generation
        number = await self._record.begin(chosen.serving.view, name, request, comparison)
        is_rollback, error = comparison is None, None
        match await chosen.store.switch(chosen.serving, other, rolls_back=is_rollback):
            case "changed":
                error = RpcError.of_rule("operations", "GENERATIONS_CHANGED", chosen.describe(name))
            case "not ready":
                error = RpcError.of_rule("operations", "GENERATION_NOT_READY", chosen.describe(name))
        await self._record.end(number, error.reason if error else DONE)
        if error:
            raise error

    def _check_ready(self, chosen: Chosen, state: GenerationState) -> GenerationState:
        if not state.ready:
            raise RpcError.of_rule(
                "operations", "GENERATION_NOT_READY", chosen.describe(state.view.generation)
            )
        return state

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
            try:
                await context.write(response)
            except Exception as error:  # gRPC has several for a call that has ended
                raise CallerLeft from error

    return handle


def _name_target(request: Any) -> str:
    """Return what an act is about, for people."""
    generation = getattr(request, "generation", "")
    return f"{request.projection} {generation}".strip()
