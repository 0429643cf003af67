"""A client of a stack that writes and reads cheques at all of its servers in turn."""

from collections.abc import Iterator
from itertools import cycle
from typing import Any
from uuid import uuid4

import grpc
from diptych.consistency.v1.consistency_pb2 import Receipt

from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, QUERY_SERVER
from tests.support.harness.bearer import bearer
from tests.support.ledger.stubs import commands, commands_grpc, queries, queries_grpc


class Clerk:
    """Calls the command servers and the query servers of a stack in turn."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.bearer = bearer(stack, "ledger.write", "ledger.read")
        self._channels: list[grpc.aio.Channel] = []
        self._commands = self._connect(COMMAND_SERVER, commands_grpc.CommandServiceStub)
        self._queries = self._connect(QUERY_SERVER, queries_grpc.QueryServiceStub)

    def _connect(self, kind: Any, stub: Any) -> Iterator[Any]:
        channels = [grpc.aio.insecure_channel(process.address) for process in self.stack.of(kind)]
        self._channels += channels
        return cycle([stub(channel) for channel in channels])

    async def write(self, request: Any, *metadata: tuple[str, str]) -> Receipt:
        """Write a cheque."""
        call = next(self._commands).WriteCheque(request, metadata=(*self.bearer, *metadata))
        receipt: Receipt = (await call).receipt
        return receipt

    async def endorse(self, cheque_id: str) -> Receipt:
        request = commands.EndorseChequeRequest(request_id=str(uuid4()), cheque_id=cheque_id)
        receipt: Receipt = (await next(self._commands).EndorseCheque(request, metadata=self.bearer)).receipt
        return receipt

    async def void(self, cheque_id: str) -> Receipt:
        fields = {"request_id": str(uuid4()), "cheque_id": cheque_id, "reason": "changed my mind"}
        call = next(self._commands).VoidCheque(commands.VoidChequeRequest(**fields), metadata=self.bearer)
        receipt: Receipt = (await call).receipt
        return receipt

    async def get(self, cheque_id: str, token: str = "") -> Any:
        request = queries.GetChequeRequest(cheque_id=cheque_id, at_least_as_fresh=token)
        return (await next(self._queries).GetCheque(request, metadata=self.bearer)).cheque

    async def list(self, **filters: Any) -> list[Any]:
        """Return the cheques of all pages; each page comes from the next server."""
        cheques: list[Any] = []
        page_token = ""
        while True:
            request = queries.ListChequesRequest(page_token=page_token, **filters)
            page = await next(self._queries).ListCheques(request, metadata=self.bearer)
            cheques += page.cheques
            if not (page_token := page.next_page_token):
                return cheques

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


def cheque_of(account: str) -> Any:
    """Return the request to write a cheque of an account."""
    return commands.WriteChequeRequest(request_id=str(uuid4()), account_id=account, amount=999)
