import asyncio
import signal
import stat
import sys
from pathlib import Path

import asyncpg
import nats
import pytest
from redis.asyncio import Redis

from devstack.servers import Nats, Postgres, Server, Valkey
from devstack.tcp_ports import free_port, is_free
from runtime.process.start_error import StartError
from tests.support.harness.waiting import until


async def test_a_database_is_migrated_and_empty(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM events") == 0
    await connection.close()


async def test_postgresql_is_killed_and_keeps_what_it_has_committed(own_postgres: Postgres) -> None:
    await own_postgres.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    await own_postgres.kill()
    assert is_free(own_postgres.port)
    await own_postgres.start()
    connection = await asyncpg.connect(own_postgres.url_of("postgres"))
    assert await connection.fetchval("SELECT answer FROM kept") == 42
    await connection.close()


async def test_postgresql_starts_after_a_kill_when_its_process_id_is_reused(
    own_postgres: Postgres, nats_server: Nats
) -> None:
    await own_postgres.kill()
    lock = own_postgres.data / "postmaster.pid"
    lock.write_text("\n".join([str(nats_server.child.process.pid), *lock.read_text().splitlines()[1:]]))
    await own_postgres.start()


async def test_postgresql_asks_for_a_password_also_with_data_from_before(own_postgres: Postgres) -> None:
    await own_postgres.stop()
    (own_postgres.data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 trust\n")
    own_postgres.password_file.unlink()
    own_postgres.folder.chmod(0o755)
    own_postgres.log.chmod(0o644)
    await own_postgres.start()
    await own_postgres.execute("SELECT 1")

    async def asks() -> bool:
        try:
            await asyncpg.connect(own_postgres.url_of("postgres"), password="guessed")
        except asyncpg.InvalidPasswordError:
            return True
        return False

    await until(asks)
    paths = (own_postgres.folder, own_postgres.data, own_postgres.log, own_postgres.password_file)
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o700, 0o700, 0o600, 0o600]
    await own_postgres.stop()
    await own_postgres.start()
    await own_postgres.execute("SELECT 1")


async def test_nats_is_killed_and_keeps_its_streams(own_nats: Nats) -> None:
    client = await nats.connect(own_nats.url)
    await client.jetstream().add_stream(name="S", subjects=["s"])
    await client.jetstream().publish("s", b"kept")
    await client.close()
    await own_nats.kill()
    await own_nats.start()
    client = await nats.connect(own_nats.url)
    assert (await client.jetstream().get_msg("S", 1)).data == b"kept"
    await client.close()


async def test_redis_is_killed_and_keeps_its_keys(own_redis: Valkey) -> None:
    async with Redis.from_url(own_redis.url) as redis:
        await redis.set("k", "kept")
    await own_redis.kill()
    await own_redis.start()
    async with Redis.from_url(own_redis.url) as redis:
        assert await redis.get("k") == b"kept"
        assert (await redis.config_get("maxmemory-policy"))["maxmemory-policy"] == "noeviction"


@pytest.mark.parametrize("kind", [Postgres, Nats, Valkey])
async def test_a_server_whose_port_is_taken_says_so(
    kind: type[Server], tmp_path: Path, nats_server: Nats
) -> None:
    with pytest.raises(StartError, match=f"^port {nats_server.port}, for {kind.name}, is taken$"):
        await kind(tmp_path, nats_server.port).start()


async def test_a_server_that_does_not_start_says_why_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "jetstream").write_text("a file where the folder of streams would be")
    with pytest.raises(StartError, match=r"^NATS does not start.*not a directory.*log\)$"):
        await Nats(tmp_path).start()


ORPHANING = """
import asyncio, os, sys
from pathlib import Path
from devstack.servers import Nats, Postgres, Valkey

async def main():
    for kind, port in zip((Postgres, Nats, Valkey), sys.argv[2:]):
        await kind(Path(sys.argv[1], kind.name), int(port)).start()
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
async def test_servers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(3)]
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ORPHANING, str(tmp_path), *map(str, ports)
    )
    assert await parent.wait() == -signal.SIGKILL
    await until(lambda: all(is_free(port) for port in ports))
    async with Postgres(tmp_path / Postgres.name, ports[0]):
        pass
