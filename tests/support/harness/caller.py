"""A client for all methods of a stack: the type of the request determines the method."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any
from uuid import uuid4

import grpc
from diptych.consistency.v1.consistency_pb2 import Receipt
from google.protobuf.message import Message

from contracts.manifest import context_of
from devstack.processes import Process
from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, OPERATIONS_SERVER, PROCESS_MANAGER, QUERY_SERVER
from runtime.codec import message_class
from tests.support.harness.bearer import bearer
from tests.support.harness.rpc_failure import reason_of

SAGA_QUERIES = "queries of sagas"


class Caller:
    """Calls the servers of a stack in turn.

    Args:
        stack: the stack.
        scopes: what the caller may do.
        apart: a context's command server, by the context, where not all serve all of them.
        subject: who the caller is.
        on_behalf_of: for whom it acts.
        metadata: further metadata of all calls.
        has_own_connections: whether other callers of this process share none of its connections.
    """

    def __init__(
        self,
        stack: Stack,
        *scopes: str,
        apart: Mapping[str, Process] | None = None,
        subject: str = "alice",
        on_behalf_of: str | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        has_own_connections: bool = False,
    ) -> None:
        self._options = (("grpc.use_local_subchannel_pool", int(has_own_connections)),)
        self._metadata = (*bearer(stack, *scopes, subject=subject, on_behalf_of=on_behalf_of), *metadata)
        self._all: list[grpc.aio.Channel] = []
        self._next = {
            "CommandService": self._channels(stack.of(COMMAND_SERVER)),
            "QueryService": self._channels(stack.of(QUERY_SERVER)),
            "OperationsService": self._channels(stack.of(OPERATIONS_SERVER)),
            SAGA_QUERIES: self._channels(stack.of(PROCESS_MANAGER)),
        }
        self._next |= {context: self._channels([process]) for context, process in (apart or {}).items()}

    def _channels(self, processes: Sequence[Process]) -> Iterator[grpc.aio.Channel]:
        channels = [grpc.aio.insecure_channel(process.address, self._options) for process in processes]
        self._all += channels
        return cycle(channels)

    def _call(self, request: Any) -> Any:
        (service, method), *_ = [
            (service, method)
            for service in request.DESCRIPTOR.file.services_by_name.values()
            for method in service.methods
            if method.input_type is request.DESCRIPTOR
        ]
        channel = next(self._next[self._select(service)])
        make: Any = channel.unary_stream if method.server_streaming else channel.unary_unary
        parse = message_class(method.output_type).FromString
        call = make(f"/{service.full_name}/{method.name}", type(request).SerializeToString, parse)
        return call(request, metadata=self._metadata, timeout=20)

    def _select(self, service: Any) -> str:
        """Return the key in `_next` of the servers of a service."""
        context = context_of(service.full_name)
        if service.name == "QueryService":
            return SAGA_QUERIES if context == "sagas" else service.name
        return context if context in self._next else service.name

    async def execute(self, request: Any) -> Receipt:
        """Execute a command; an empty request id is replaced by a new one."""
        request.request_id = request.request_id or str(uuid4())
        receipt: Receipt = (await self._call(request)).receipt
        return receipt

    async def query(self, request: Message) -> Any:
        return await self._call(request)

    async def rejection_reason(self, request: Any) -> str:
        """Return the reason with which a request is rejected; fail if it is accepted."""
        fields = request.DESCRIPTOR.fields_by_name
        is_command = "request_id" in fields and "page_size" not in fields
        try:
            await (self.execute(request) if is_command else self.query(request))
        except grpc.aio.AioRpcError as error:
            return reason_of(error)
        raise AssertionError(f"{request.DESCRIPTOR.name} was not refused")

    def watch(self, request: Message) -> AsyncIterator[Any]:
        """Yield the messages of a watch."""
        watching: AsyncIterator[Any] = self._call(request)
        return watching

    async def close(self) -> None:
        for channel in self._all:
            await channel.close()
