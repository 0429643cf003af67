"""pgbouncer before a PostgreSQL: the real one, if it is installed."""

import asyncio
import os
import shutil
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy.engine import make_url

from devstack.tcp_ports import free_port, is_free
from tests.support.harness.waiting import until

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")

CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server_port} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = 4
ignore_startup_parameters = extra_float_digits, {ignored}
"""


@asynccontextmanager
async def run_pooler(folder: Path, database_url: str, mode: str, ignored: str) -> AsyncIterator[str]:
    """Run pgbouncer; yield the URL of the database through it.

    Args:
        folder: for its configuration; it becomes readable for everyone.
        database_url: of the database behind it.
        mode: its `pool_mode`.
        ignored: its `ignore_startup_parameters`.
    """
    url, port = make_url(database_url), free_port()
    values = {
        "server_port": url.port,
        "user": url.username,
        "password": url.password,
        "port": port,
        "mode": mode,
        "ignored": ignored,
    }
    file = folder / "pgbouncer.ini"
    file.write_text(CONFIGURATION.format_map(values))
    await asyncio.to_thread(folder.chmod, 0o755)
    switch = ("--user", "nobody") if os.geteuid() == 0 else ()  # it refuses to run as root
    process = await asyncio.create_subprocess_exec(
        str(PROGRAM), "--quiet", *switch, str(file), stderr=DEVNULL
    )
    try:
        await until(lambda: not is_free(port))
        yield url.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
