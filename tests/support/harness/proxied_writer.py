"""A writer of commands whose connections to PostgreSQL lead through a proxy."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy.engine import make_url

from command_server.kernel.group_commit import GroupCommit
from command_server.postgres.event_store import PostgresEventStore
from tests.support.builders.requests import group_commit
from tests.support.harness.postgres_proxy import PostgresProxy


def make_proxy(database_url: str, certificate: Path | None = None) -> PostgresProxy:
    """Return a proxy before the database; with a certificate, its clients use TLS."""
    tls = None
    if certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
    return PostgresProxy(make_url(database_url).port or 5432, tls)


@asynccontextmanager
async def run_store(
    database_url: str, proxy: PostgresProxy, certificate: Path | None = None
) -> AsyncIterator[PostgresEventStore]:
    """Yield a store whose connections lead through the proxy.

    Args:
        database_url: the database behind the proxy.
        proxy: it runs until the block ends.
        certificate: the one that the proxy must show; None for connections without TLS.
    """
    async with proxy.run() as port:
        url = make_url(database_url).set(host="localhost", port=port)
        if certificate is not None:
            url = url.update_query_dict({"sslmode": "verify-full", "sslrootcert": str(certificate)})
        store = PostgresEventStore(url.render_as_string(hide_password=False))
        yield store
        await store.close()


@asynccontextmanager
async def run_writer(store: PostgresEventStore) -> AsyncIterator[GroupCommit]:
    commits = group_commit(store)
    writer = asyncio.create_task(commits.run())
    try:
        yield commits
    finally:
        commits.close()
        await writer
