"""A database URL that PostgreSQL, or a pooler before it, does not take is named in one line."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from command_server.kernel.ports import StoreUnavailable
from command_server.postgres.event_store import PostgresEventStore, session_settings
from command_server.postgres.schema import SERVICE_ROLE
from devstack.tcp_ports import free_port
from operations.server_errors import UNREACHABLE, summarize
from runtime.grpc.health import Health
from runtime.postgres import create_engine, is_ready
from runtime.postgres_connection import DatabaseRefused
from tests.support.harness.log_lines import own_lines
from tests.support.harness.pooler import PROGRAM, run_pooler

SESSION = {"role": SERVICE_ROLE, "transaction_timeout": "90s", "jit": "off"}


async def connect(database_url: str, session: dict[str, str] = SESSION) -> str:
    """Return the role of a session."""
    engine = create_engine(database_url, session=session)
    try:
        async with engine.connect() as connection:
            return str((await connection.execute(text("SELECT current_setting('role')"))).scalar_one())
    finally:
        await engine.dispose()


def change(database_url: str, **parts: object) -> str:
    return make_url(database_url).set(**parts).render_as_string(hide_password=False)  # type: ignore[arg-type]


async def test_a_session_has_its_parameters(database_url: str) -> None:
    assert await connect(database_url) == SERVICE_ROLE
    assert await connect(f"{database_url}?application_name=diptych&sslmode=prefer") == SERVICE_ROLE
    assert await connect(database_url, {}) == "none"


async def test_what_postgresql_does_not_take_names_the_setting(database_url: str) -> None:
    for url, cause in (
        (change(database_url, database="nowhere"), "does not exist"),
        (change(database_url, username="nobody"), "password authentication failed"),
    ):
        with pytest.raises(DatabaseRefused, match=f"^DIPTYCH_DATABASE_URL: .*{cause}"):
            await connect(url)
    with pytest.raises(DatabaseRefused, match=r"^DIPTYCH_DATABASE_URL: .*role"):
        await connect(database_url, {"role": "diptych_unknown"})
    with pytest.raises(UNREACHABLE) as error:
        await connect(f"{database_url}?sslmode=require")
    assert "SSL" in summarize(error.value)


@asynccontextmanager
async def pooler(database_url: str, *, drops: bool) -> AsyncIterator[str]:
    """A pooler that drops all parameters of a session but user and database, or refuses them."""
    target = make_url(database_url)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:  # a request for TLS precedes the parameters
            (size,) = struct.unpack(">I", await reader.readexactly(4))
            packet = await reader.readexactly(size - 4)
            if packet[:4] == struct.pack(">HH", 3, 0):
                break
            writer.write(b"N")
        if not drops:
            fields = b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: role\0\0"
            writer.write(b"E" + struct.pack(">I", len(fields) + 4) + fields)
            writer.close()
            return
        words = packet[4:].split(b"\0")
        pairs = list(zip(words[::2], words[1::2], strict=False))
        kept = [name + b"\0" + value + b"\0" for name, value in pairs if name in (b"user", b"database")]
        body = packet[:4] + b"".join(kept) + b"\0"
        server_reader, server_writer = await asyncio.open_connection(target.host, target.port)
        server_writer.write(struct.pack(">I", len(body) + 4) + body)
        await asyncio.gather(pump(reader, server_writer), pump(server_reader, writer), return_exceptions=True)

    port = free_port()
    async with await asyncio.start_server(serve, "127.0.0.1", port):
        yield change(database_url, host="127.0.0.1", port=port)


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        sink.write(data)
    sink.close()


@pytest.mark.parametrize(("drops", "verb"), [(False, "refuses"), (True, "drops")])
async def test_a_pooler_that_takes_no_session_parameters_is_refused(
    database_url: str, drops: bool, verb: str
) -> None:
    expected = rf"^DIPTYCH_DATABASE_URL: it leads to a pooler that {verb} the session parameters .*role"
    async with pooler(database_url, drops=drops) as url:
        with pytest.raises(DatabaseRefused, match=expected):
            await connect(url)
        store = PostgresEventStore(url)
        with pytest.raises(StoreUnavailable):
            async with store.begin():
                pass
        await store.close()


async def test_a_process_that_cannot_use_its_database_says_why_once(database_url: str) -> None:
    engine = create_engine(change(database_url, database="nowhere"), session=session_settings(SERVICE_ROLE))
    health = Health()
    with own_lines("info") as lines:
        for _ in range(5):
            await health._run_once(lambda: is_ready(engine))
    await engine.dispose()
    (line,) = lines.of("Not serving")
    assert line["level"] == "warning"
    assert line["error"] == 'DatabaseRefused: DIPTYCH_DATABASE_URL: database "nowhere" does not exist'


@pytest.mark.long
@pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is missing: Debian's package pgbouncer has it")
@pytest.mark.parametrize(
    ("mode", "ignored", "verb"),
    [
        ("transaction", "", "refuses"),
        ("transaction", "role, transaction_timeout, jit", "drops"),
        ("session", "", "refuses"),
        ("session", "role, transaction_timeout, jit", "drops"),
    ],
)
async def test_pgbouncer_is_refused(
    tmp_path: Path, database_url: str, mode: str, ignored: str, verb: str
) -> None:
    async with run_pooler(tmp_path, database_url, mode, ignored) as url:
        for _ in range(3):
            with pytest.raises(DatabaseRefused, match=f"a pooler that {verb} the session parameters .*role"):
                await connect(url)
