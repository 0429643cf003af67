"""Copies, forgeries and garbage published to the stream by hand: nobody believes them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from contracts import streams
from contracts.feed_signatures import SIGNATURE
from contracts.key_ring import KeyState, Purpose
from contracts.view_layout import View
from devstack.stack import Stack
from operations import keys
from operations.processes import RELAY
from runtime.jetstream import read_stream_identity
from tests.support.harness.invariants import assert_consistent, verify_stack
from tests.support.harness.jetstream import open_client
from tests.support.harness.log_lines import lines_of
from tests.support.harness.traffic import Traffic
from tests.support.harness.waiting import until
from tests.support.ledger.clerk import Clerk
from tests.support.ledger.stubs import types

VIEW = View.of(types.Cheque)
FOREIGN = "Foreign message in the stream; skipped"


@asynccontextmanager
async def jetstream(stack: Stack) -> AsyncIterator[Any]:
    client = await open_client(stack.settings.nats_url)
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


def with_headers(headers: Mapping[str, str], **values: str) -> dict[str, str]:
    return {**headers, **{key.replace("_", "-"): value for key, value in values.items()}}


def forge(kind: str, stream: str, headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers of a foreign message, from those of the stream's last event."""
    match kind:
        case "copy":
            return headers
        case "next":
            return with_headers(headers, diptych_version="3", ce_id=f"{stream}@3")
        case "older":
            return with_headers(headers, diptych_version="1", ce_id=f"{stream}@1")
        case "gap":
            return with_headers(headers, diptych_version="9", ce_id=f"{stream}@9")
        case "numbers":
            return with_headers(headers, diptych_position=str(10**30))
        case "unsigned":
            return {name: value for name, value in headers.items() if name != SIGNATURE}
        case "unknown key":
            return with_headers(headers, ce_signature="0123abcd." + "0" * 32)
        case _:
            return {}


SHORT_KINDS = ("copy", "next", "unknown key")
LONG_KINDS = ("older", "gap", "numbers", "unsigned", "nonsense")


@pytest.mark.parametrize(
    "kind", [*SHORT_KINDS, *(pytest.param(kind, marks=pytest.mark.long) for kind in LONG_KINDS)]
)
async def test_readers_and_relay_pass_over_a_foreign_message(
    stack: Stack, traffic: Traffic, kind: str
) -> None:
    clerk = Clerk(stack)
    async with traffic.flowing(), jetstream(stack) as js:
        await traffic.more(20)
        cheque_id, stream = await write_cheque(traffic, clerk)
        await clerk.endorse(cheque_id)
        original = await js.get_last_msg(streams.JETSTREAM, streams.subject(stream), direct=True)
        headers = {key: value for key, value in original.headers.items() if not key.startswith("Nats-")}
        epoch = await publish_foreign(js, stream, original.data, forge(kind, stream, headers))
        await traffic.more(20)
        identity = await read_stream_identity(js)
    assert identity is not None
    assert identity.epoch == epoch  # not made anew for it
    await assert_consistent(stack, traffic.answers)
    assert (await clerk.get(cheque_id)).version == 2
    assert "foreign messages in the stream" in (await verify_stack(stack)).to_text()
    await clerk.close()


async def test_the_relay_notices_a_foreign_message_although_it_publishes_nothing(
    stack: Stack, traffic: Traffic
) -> None:
    clerk = Clerk(stack)
    async with jetstream(stack) as js:
        _, stream = await write_cheque(traffic, clerk)
        await publish_foreign(js, stream, b"", {})
        sequence = (await js.stream_info(streams.JETSTREAM)).state.last_seq
        folder = Path(stack.settings.jwks).parent
        logs = [folder / f"{relay.name}.log" for relay in stack.of(RELAY)]

        def is_logged() -> bool:
            return any(line["at"] == sequence for log in logs for line in lines_of(log, FOREIGN))

        await until(is_logged)
    await clerk.close()


async def test_a_forged_aggregate_has_no_view(stack: Stack, traffic: Traffic) -> None:
    clerk = Clerk(stack)
    async with jetstream(stack) as js:
        _, stream = await write_cheque(traffic, clerk)
        original = await js.get_last_msg(streams.JETSTREAM, streams.subject(stream), direct=True)
        headers = {key: value for key, value in original.headers.items() if not key.startswith("Nats-")}
        forged = with_headers(headers, diptych_version="1", ce_id="ledger.cheque.forged@1")
        await publish_foreign(js, "ledger.cheque.forged", original.data, forged)
        await write_cheque(traffic, clerk)  # read behind the forged message
    async with Redis.from_url(stack.settings.redis_url) as redis:
        assert not await redis.exists(VIEW.key("forged"))
    await assert_consistent(stack, traffic.answers)
    await clerk.close()


async def test_a_revoked_key_leads_to_a_new_stream_while_all_goes_on(stack: Stack, traffic: Traffic) -> None:
    ring = Path(stack.settings.keys)
    async with traffic.flowing(), jetstream(stack) as js:
        await traffic.more(20)
        before = await read_stream_identity(js)
        assert before is not None
        (old,) = before.keys
        new = keys.create(ring, Purpose.FEED)

        async def signs_with_both() -> bool:
            found = await read_stream_identity(js)
            return found is not None and found.keys == {old, new} and found.epoch == before.epoch

        await until(signs_with_both)
        await traffic.more(20)
        keys.set_state(ring, old, KeyState.REVOKED)

        async def is_new() -> bool:
            found = await read_stream_identity(js)
            return (
                found is not None and found.epoch != before.epoch and found.complete and found.keys == {new}
            )

        await until(is_new, 60)
        await traffic.more(20)
    await assert_consistent(stack, traffic.answers)
