"""What each user of NATS may do, tried on a server with the users of `diptych provision nats`."""

from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from command_server.relay.event_stream import _build_config
from contracts import streams
from devstack.servers import Nats
from operations.provision.nats import ADMINISTRATOR, RIGHTS, key_file, provision
from runtime.jetstream.nats_url import parse_nats_url
from runtime.process.start_error import InvalidSetting, StartError
from tests.support.harness.waiting import until

READERS = {"relay", "projector", "process_manager", "operations_server", "verify", "housekeeping"}
API = "$JS.API"
LAST = "anything.else"
"""A subject of nobody, whose refusal comes last."""

MAY_PUBLISH: dict[str, Collection[str]] = {
    "diptych.feed.epoch.0.banking.account.a-1": {"relay"},
    "diptych.events.0.banking.account.a-1": (),
    "diptych.wake": {"command_server"},
    "diptych.published": {"projector", "process_manager"},
    "diptych.recreate": {"projector", "process_manager"},
    "diptych.skips": {"projector"},
    "diptych.subject-keys": {"projector", "process_manager", "operations_server"},
    f"{API}.STREAM.INFO.DIPTYCH": READERS,
    f"{API}.STREAM.MSG.GET.DIPTYCH": READERS,
    f"{API}.DIRECT.GET.DIPTYCH": READERS,
    f"{API}.CONSUMER.CREATE.DIPTYCH.name": READERS,
    f"{API}.CONSUMER.MSG.NEXT.DIPTYCH.name": READERS,
    f"{API}.STREAM.CREATE.DIPTYCH": {"relay"},
    f"{API}.STREAM.UPDATE.DIPTYCH": {"relay", "housekeeping"},
    f"{API}.STREAM.DELETE.DIPTYCH": {"relay"},
    f"{API}.STREAM.PURGE.DIPTYCH": {"housekeeping"},
    f"{API}.STREAM.MSG.DELETE.DIPTYCH": (),
    f"{API}.STREAM.CREATE.OTHER": (),
    "_INBOX.of.others": (),
    LAST: (),
}
"""Subject to the users that may publish to it, besides the administrator."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Nats]:
    server = Nats(tmp_path / "nats", configuration=provision(tmp_path / "users"))
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def open_client(server: Nats, tmp_path: Path) -> AsyncIterator[Callable[[str], Any]]:
    clients = []

    async def open_(user: str) -> tuple[Client, list[str]]:
        """Return a client, and the list of its errors."""
        errors: list[str] = []

        async def note(error: Exception) -> None:
            errors.append(str(error))

        path = str(key_file(tmp_path / "users", user))
        prefix = parse_nats_url(f"{server.url}?nkey={path}").inbox_prefix
        client = await nats.connect(server.url, nkeys_seed=path, inbox_prefix=prefix, error_cb=note)
        clients.append(client)
        return client, errors

    yield open_
    for client in clients:
        await client.close()


@pytest.mark.parametrize("user", [user for user in RIGHTS if user != ADMINISTRATOR])
async def test_a_user_may_publish_what_its_process_needs(open_client: Any, user: str) -> None:
    client, errors = await open_client(user)
    for subject in MAY_PUBLISH:
        await client.publish(subject, b"")
    await until(lambda: any(LAST in error for error in errors))
    text = "\n".join(errors)
    refused = {subject for subject in MAY_PUBLISH if f'"{subject.lower()}"' in text}
    assert refused == {subject for subject, users in MAY_PUBLISH.items() if user not in users}


@pytest.mark.parametrize("user", [user for user in RIGHTS if user != ADMINISTRATOR])
async def test_a_user_receives_its_own_replies_and_no_others(open_client: Any, user: str) -> None:
    client, errors = await open_client(user)
    await client.subscribe(client.new_inbox())
    await client.flush()
    assert errors == []
    other, _ = await open_client(next(name for name in RIGHTS if name != user))
    for subject in (other.new_inbox(), "_INBOX.>", "diptych.events.>", "diptych.feed.>", ">"):
        await client.subscribe(subject)
    await until(lambda: len(errors) == 5)


async def test_the_relay_replies_once_to_those_who_ask_it(open_client: Any) -> None:
    relay, errors = await open_client("relay")
    projector, _ = await open_client("projector")

    async def reply(message: Any) -> None:
        await message.respond(b"first")
        await message.respond(b"second")

    await relay.subscribe(streams.PUBLISHED_SUBJECT, cb=reply)
    await relay.flush()
    assert (await projector.request(streams.PUBLISHED_SUBJECT, timeout=5)).data == b"first"
    await relay.publish(projector.new_inbox(), b"unasked")
    await until(lambda: len(errors) == 2)


async def test_nobody_connects_without_a_key(server: Nats) -> None:
    with pytest.raises(nats.errors.Error):
        await nats.connect(server.url, allow_reconnect=False, connect_timeout=2)


async def test_nobody_removes_messages_from_the_stream(open_client: Any) -> None:
    """Not even the administrator, but with the whole stream."""
    client, _ = await open_client(ADMINISTRATOR)
    js = client.jetstream()
    await js.add_stream(_build_config("epoch", "incarnation", "key", deny_purge=True))
    await client.publish("diptych.feed.epoch.0.a.b.c", b"data")
    await client.flush()
    with pytest.raises(nats.js.errors.APIError, match="delete"):
        await js.delete_msg(streams.JETSTREAM, 1)
    with pytest.raises(nats.js.errors.APIError, match="purge"):
        await js.purge_stream(streams.JETSTREAM)
    config = (await js.stream_info(streams.JETSTREAM)).config
    for change in ({"deny_delete": False}, {"deny_purge": False}):
        with pytest.raises(nats.js.errors.APIError):
            await js.update_stream(config.evolve(**change))
    assert (await js.stream_info(streams.JETSTREAM)).state.messages == 1


def test_keys_stay_until_they_are_rotated(tmp_path: Path) -> None:
    first = provision(tmp_path).read_text()
    key_file(tmp_path, "relay").unlink()
    second = provision(tmp_path).read_text()
    assert sum(a != b for a, b in zip(first.splitlines(), second.splitlines(), strict=True)) == 1
    third = provision(tmp_path, rotate=True).read_text()
    assert not {line for line in second.splitlines() if "nkey" in line} & set(third.splitlines())
    assert key_file(tmp_path, "relay").stat().st_mode & 0o777 == 0o600
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("seed", ["", "no seed", "SUAK" * 20])
def test_what_is_no_key_is_refused(tmp_path: Path, seed: str) -> None:
    key_file(tmp_path, "relay").write_text(seed)
    with pytest.raises(StartError, match=r"relay\.nk"):
        provision(tmp_path)
    with pytest.raises(InvalidSetting, match="nkey="):
        parse_nats_url(f"nats://127.0.0.1:4222?nkey={key_file(tmp_path, 'relay')}")


def test_a_missing_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="nkey="):
        parse_nats_url(f"nats://127.0.0.1:4222?nkey={tmp_path / 'missing'}")
