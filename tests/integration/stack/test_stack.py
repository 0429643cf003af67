from pathlib import Path

import pytest

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from devstack.tcp_ports import is_free
from operations.processes import QUERY_SERVER, RELAY, check_health
from runtime.process.start_error import StartError


def small(folder: Path, urls: dict[str, str], **environment: str) -> Stack:
    """Return a stack on the run's servers that starts in no time."""
    return temporary_stack(
        folder,
        database_url=urls["database_url"],
        nats_url=urls["nats_url"],
        redis_url=urls.get("redis_url"),
        command_servers=0,
        relays=0,
        projectors=0,
        environment=environment,
    )


@pytest.fixture
def urls(database_url: str, nats_url: str, redis_url: str) -> dict[str, str]:
    return {"database_url": database_url, "nats_url": nats_url, "redis_url": redis_url}


async def test_one_process_is_killed_and_started_again_at_its_address(
    tmp_path: Path, urls: dict[str, str]
) -> None:
    async with small(tmp_path, urls) as stack:
        (server,) = stack.of(QUERY_SERVER)
        await server.kill()
        assert await check_health(server.address) == "UNAVAILABLE"
        await server.start()
        assert await check_health(server.address) == "SERVING"


async def test_a_process_is_added_at_an_address_of_its_own(tmp_path: Path, urls: dict[str, str]) -> None:
    async with small(tmp_path, urls) as stack:
        second = stack.add(QUERY_SERVER)
        await second.start()
        assert second.name == "query_server-2"
        assert len({process.address for process in stack.of(QUERY_SERVER)}) == 2
    assert [process.child.process.returncode for process in stack.processes] == [0, 0]


async def test_what_the_stack_starts_with_goes_to_all_its_processes(
    tmp_path: Path, urls: dict[str, str]
) -> None:
    async with small(tmp_path, urls, DIPTYCH_LOG_LEVEL="error"):
        assert (tmp_path / "query_server.log").read_text() == ""


def test_each_kind_of_process_has_variables_of_its_own(tmp_path: Path, urls: dict[str, str]) -> None:
    kinds = {
        RELAY: {"DIPTYCH_DATABASE_URL": "postgresql://relay@host/db", "DIPTYCH_LOG_LEVEL": "debug"},
        QUERY_SERVER: {"DIPTYCH_REDIS_URL": "redis://reader@host"},
    }
    common = {"DIPTYCH_LOG_LEVEL": "error"}
    stack = temporary_stack(
        tmp_path,
        database_url=urls["database_url"],
        nats_url=urls["nats_url"],
        redis_url=urls["redis_url"],
        environment=common,
        kind_environment=kinds,
    )
    (relay,), (queries,) = stack.of(RELAY), stack.of(QUERY_SERVER)
    assert relay.child.environment is not None and queries.child.environment is not None
    assert relay.child.environment["DIPTYCH_DATABASE_URL"] == "postgresql://relay@host/db"
    assert relay.child.environment["DIPTYCH_REDIS_URL"] == urls["redis_url"]
    assert queries.child.environment["DIPTYCH_DATABASE_URL"] == urls["database_url"]
    assert queries.child.environment["DIPTYCH_REDIS_URL"] == "redis://reader@host"
    assert relay.child.environment["DIPTYCH_LOG_LEVEL"] == "error", "the caller's variables come first"
    assert stack.settings.database_url == urls["database_url"], "the stack stays the administrator"


async def test_a_stack_that_does_not_start_says_why_and_leaves_nothing_running(
    tmp_path: Path, urls: dict[str, str]
) -> None:
    del urls["redis_url"]
    stack = small(tmp_path, urls, DIPTYCH_JWKS="/nowhere/jwks.json")
    stack.add(RELAY)
    with pytest.raises(
        StartError, match=r"^query_server ended with exit code 2: .*DIPTYCH_JWKS.*cannot read the keys"
    ) as error:
        await stack.start()
    assert "\n" not in str(error.value)
    assert is_free(stack.servers["redis_url"].port)
    assert not any(process.child.running for process in stack.processes)
