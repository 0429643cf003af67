"""All keys are rotated under load: no token is refused but those of a revoked key."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from diptych.consistency.v1.consistency_pb2 import Receipt

from contracts.key_ring import KeyRing, Purpose
from devstack.stack import Stack
from operations import keys
from operations.processes import QUERY_SERVER
from runtime.process.key_file import CHECK_INTERVAL
from runtime.process.lifecycle import cancel_and_wait
from tests.support.harness.bearer import bearer
from tests.support.harness.invariants import assert_consistent
from tests.support.harness.keys import key_id_of
from tests.support.harness.rpc_failure import rpc_failure
from tests.support.harness.traffic import Traffic
from tests.support.harness.waiting import until
from tests.support.ledger.stubs import commands, queries, queries_grpc

CALLERS = 6
HELD_BACK = 2.0
"""Seconds by which one server's copy of the key ring is late. New keys sign later than that."""
REASONS = ("TOKEN_INVALID", "PAGE_TOKEN_INVALID", "RESUME_TOKEN_INVALID")


async def endorse(traffic: Traffic, cheque_id: str) -> None:
    request = commands.EndorseChequeRequest(request_id=str(uuid4()), cheque_id=cheque_id)
    await traffic.send("EndorseCheque", request, random.Random(0))


@dataclass(frozen=True)
class Tokens:
    """A token of each kind, of one account's cheques."""

    account: str
    cheque_id: str
    consistency: str
    page: str
    resume: str

    @property
    def key_ids(self) -> Sequence[str]:
        return [key_id_of(token) for token in (self.consistency, self.page, self.resume)]


class Reader:
    """Gets tokens from one query server, and uses them at another."""

    def __init__(self, stack: Stack) -> None:
        self._metadata = bearer(stack, "ledger.read")
        self._channels = [grpc.aio.insecure_channel(each.address) for each in stack.of(QUERY_SERVER)]
        self.servers: list[Any] = [queries_grpc.QueryServiceStub(channel) for channel in self._channels]
        self._next_server = cycle(self.servers)

    async def get_tokens(self, traffic: Traffic, account: str) -> Tokens:
        """Write two cheques, and return tokens of the account."""
        receipts: list[Receipt] = [await traffic.write(account) for _ in range(2)]
        cheque_id, token = receipts[1].aggregate_id, receipts[1].consistency_token
        page = await self._list(next(self._next_server), account, at_least_as_fresh=token)
        responses = self._watch(next(self._next_server), cheque_id)
        response = await responses.read()
        responses.cancel()
        return Tokens(account, cheque_id, token, page.next_page_token, response.resume_token)

    async def use(self, tokens: Tokens, traffic: Traffic, server: Any = None) -> None:
        """Use each of the tokens."""
        await self.get(tokens, server)
        page = await self._list(server or next(self._next_server), tokens.account, page_token=tokens.page)
        assert page.cheques
        responses = self._watch(server or next(self._next_server), tokens.cheque_id, tokens.resume)
        await endorse(traffic, tokens.cheque_id)
        await responses.read()
        responses.cancel()

    async def get(self, tokens: Tokens, server: Any = None) -> None:
        request = queries.GetChequeRequest(cheque_id=tokens.cheque_id, at_least_as_fresh=tokens.consistency)
        server = server or next(self._next_server)
        await server.GetCheque(request, metadata=self._metadata, timeout=10)

    async def refusals(self, tokens: Tokens, server: Any) -> list[tuple[str, str]]:
        """Return the reason and the cause with which a server refuses each of the tokens."""
        calls = [
            self.get(tokens, server),
            self._list(server, tokens.account, page_token=tokens.page),
            self._watch(server, tokens.cheque_id, tokens.resume).read(),
        ]
        failures = [await rpc_failure(call) for call in calls]
        return [(failure.reason, failure.metadata["cause"]) for failure in failures]

    async def _list(self, server: Any, account: str, **fields: str) -> Any:
        request = queries.ListChequesRequest(account_id=account, page_size=1, **fields)
        return await server.ListCheques(request, metadata=self._metadata, timeout=10)

    def _watch(self, server: Any, cheque_id: str, resume_token: str = "") -> Any:
        request = queries.WatchChequeRequest(cheque_id=cheque_id, resume_token=resume_token)
        return server.WatchCheque(request, metadata=self._metadata, timeout=20)

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


@asynccontextmanager
async def using_tokens(reader: Reader, traffic: Traffic) -> AsyncIterator[None]:
    """Get and use tokens with several callers meanwhile; any refusal fails the test."""
    stopped = False

    async def run(account: str) -> int:
        rounds = 0
        while not stopped:
            await reader.use(await reader.get_tokens(traffic, account), traffic)
            rounds += 1
        return rounds

    callers = [asyncio.create_task(run(f"rotation-{number}")) for number in range(CALLERS)]
    try:
        yield
    finally:
        stopped = True
        rounds = await asyncio.gather(*callers)
    print(f"{sum(rounds)} rounds")
    assert all(rounds)


@contextmanager
def truncated(path: Path) -> Iterator[None]:
    content = path.read_bytes()
    path.write_bytes(content[:100])
    yield
    path.write_bytes(content)


def is_changed(path: Path, copy: Path) -> bool:
    return path.read_bytes() != copy.read_bytes()


def copy_ring(path: Path, copy: Path) -> None:
    copy.write_bytes(path.read_bytes())


@asynccontextmanager
async def late_server(stack: Stack, path: Path, copy: Path) -> AsyncIterator[None]:
    """Run another query server, whose copy of the key ring follows each change HELD_BACK seconds later."""
    copy_ring(path, copy)
    server = stack.add(QUERY_SERVER, environment={"DIPTYCH_KEYS": str(copy)})

    async def follow() -> None:
        while True:
            if is_changed(path, copy):
                await asyncio.sleep(HELD_BACK)
                copy_ring(path, copy)
            await asyncio.sleep(0.05)

    following = asyncio.create_task(follow())
    try:
        await server.start()
        yield
    finally:
        await cancel_and_wait(following)
        await server.stop()
        stack.processes.remove(server)


def read_ring(path: Path) -> KeyRing:
    return KeyRing.parse(path.read_bytes())


@pytest.mark.long
async def test_a_rotation_refuses_no_token_but_those_of_a_revoked_key(
    stack: Stack, traffic: Traffic, tmp_path: Path
) -> None:
    async with late_server(stack, Path(stack.settings.keys), tmp_path / "late.json"):
        await rotate(stack, traffic)
    await assert_consistent(stack, traffic.answers)


async def rotate(stack: Stack, traffic: Traffic) -> None:
    path, reader = Path(stack.settings.keys), Reader(stack)
    old = await reader.get_tokens(traffic, "before")
    new_ids: list[str] = []

    async def all_sign_with_new_keys() -> bool:
        """Get tokens twice from each server, since callers use the servers in turn."""
        tokens = [await reader.get_tokens(traffic, "after") for _ in range(2 * len(reader.servers))]
        return all(set(each.key_ids) <= set(new_ids) for each in tokens)

    async with using_tokens(reader, traffic):
        await traffic.more(20)
        new_ids += [keys.create(path, purpose, after=timedelta(seconds=4)) for purpose in Purpose]
        assert not await all_sign_with_new_keys()
        await until(all_sign_with_new_keys)
        for key_id in old.key_ids:
            keys.set_state(path, key_id, "verify-only")
        await asyncio.sleep(HELD_BACK + 3 * CHECK_INTERVAL)  # every server has read the file
        for server in reader.servers:
            await reader.use(old, traffic, server)
        for key_id in old.key_ids:
            keys.set_state(path, key_id, "revoked")
        await asyncio.sleep(HELD_BACK + 3 * CHECK_INTERVAL)
        for server in reader.servers:
            assert await reader.refusals(old, server) == [(reason, "REVOKED_KEY") for reason in REASONS]
        with truncated(path):  # a bad file leaves the keys in use
            await asyncio.sleep(HELD_BACK + 3 * CHECK_INTERVAL)
            await traffic.more(20)
    assert {key.id for key in read_ring(path).keys.values()} >= {*new_ids, *old.key_ids}
    await reader.close()
