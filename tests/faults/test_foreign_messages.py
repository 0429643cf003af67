"""Copies, forgeries and garbage published to the stream by hand. The relay recreates the stream."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import nats
import pytest
from redis.asyncio import Redis

from contracts import streams
from contracts.view_layout import View
from devstack.stack import Stack
from operations import projections
from runtime.jetstream import read_stream_identity
from tests.support.harness.invariants import assert_consistent, verify_stack
from tests.support.harness.traffic import Traffic
from tests.support.harness.waiting import until
from tests.support.ledger.clerk import Clerk
from tests.support.ledger.stubs import types

VIEW = View.of(types.Cheque)


@asynccontextmanager
async def jetstream(stack: Stack) -> AsyncIterator[Any]:
    client = await nats.connect(stack.settings.nats_url)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def publish_foreign(js: Any, stream: str, data: bytes, headers: Mapping[str, str]) -> str:
    """Publish a message as an event of a stream; return the epoch of the JetStream stream."""
    identity = await read_stream_identity(js)
    assert identity is not None
    epoch = identity.epoch
    subject = streams.subject(stream).replace("diptych.events.", f"diptych.feed.{epoch}.", 1)
    await js.publish(subject, data, headers=dict(headers))
    return epoch


async def write_cheque(traffic: Traffic, clerk: Clerk) -> tuple[str, str]:
    """Write a cheque, wait for its views, and return its id and its stream."""
    receipt = await traffic.write("copied")
    await clerk.list(account_id="copied", at_least_as_fresh=receipt.consistency_token)
    return receipt.aggregate_id, f"ledger.cheque.{receipt.aggregate_id}"


async def wait_until_recreated(js: Any, epoch: str) -> None:
    async def holds() -> bool:
        found = await read_stream_identity(js)
        return found is not None and found.epoch != epoch and found.complete

    await until(holds)


def with_headers(headers: Mapping[str, str], **values: str) -> dict[str, str]:
    return {**headers, **{key.replace("_", "-"): value for key, value in values.items()}}


@pytest.mark.parametrize(
    "kind",
    [
        "copy",
        "numbers",
        *(pytest.param(kind, marks=pytest.mark.long) for kind in ("older", "gap", "nonsense")),
    ],
)
async def test_a_foreign_message_changes_no_view_and_is_removed(
    stack: Stack, traffic: Traffic, kind: str
) -> None:
    clerk = Clerk(stack)
    async with traffic.flowing(), jetstream(stack) as js:
        await traffic.more(20)
        cheque_id, stream = await write_cheque(traffic, clerk)
        await clerk.endorse(cheque_id)
        original = await js.get_last_msg(streams.JETSTREAM, streams.subject(stream), direct=True)
        headers = {key: value for key, value in original.headers.items() if not key.startswith("Nats-")}
        foreign = {
            "copy": headers,
            "older": with_headers(headers, diptych_version="1", ce_id=f"{stream}@1"),
            "gap": with_headers(headers, diptych_version="9", ce_id=f"{stream}@9"),
            "nonsense": {},
            "numbers": with_headers(headers, diptych_position=str(10**30)),
        }[kind]
        epoch = await publish_foreign(js, stream, original.data, foreign)
        await wait_until_recreated(js, epoch)
        await traffic.more(20)
    await assert_consistent(stack, traffic.answers)
    assert (await clerk.get(cheque_id)).version == 2
    await clerk.close()


async def test_verify_finds_a_forged_event_and_a_rebuild_removes_it(stack: Stack, traffic: Traffic) -> None:
    clerk = Clerk(stack)
    async with jetstream(stack) as js:
        _, stream = await write_cheque(traffic, clerk)
        original = await js.get_last_msg(streams.JETSTREAM, streams.subject(stream), direct=True)
        headers = {key: value for key, value in original.headers.items() if not key.startswith("Nats-")}
        forged = with_headers(headers, diptych_version="1", ce_id="ledger.cheque.forged@1")
        epoch = await publish_foreign(js, "ledger.cheque.forged", original.data, forged)
        await wait_until_recreated(js, epoch)
    async with Redis.from_url(stack.settings.redis_url) as redis:

        async def is_projected() -> bool:
            return bool(await redis.exists(VIEW.key("forged")))

        await until(is_projected)
    report = await verify_stack(stack)
    assert "view ledger.cheque forged" in report.to_text()
    for view in projections.list_views(stack.settings):
        if "ledger.cheque" in view.source_streams:
            await projections.rebuild(stack.settings, view, within=60)
    await assert_consistent(stack, traffic.answers)
    await clerk.close()
