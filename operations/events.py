"""Decodes a stream of the event store for people."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from google.protobuf.descriptor_pool import Default
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from command_server.kernel.context import Context
from command_server.postgres.event_store import session_settings
from command_server.postgres.schema import EVENTS, SERVICE_ROLE
from runtime.postgres import create_engine
from runtime.process.contexts import choose_contexts, load_parts
from runtime.process.settings import Settings
from runtime.process.start_error import StartError

PAGE_SIZE = 100
"""Events in memory at once."""


async def decode_stream(settings: Settings, stream: str) -> AsyncIterator[str]:
    """Yield a stream's events as lines of JSON, in order.

    Raises:
        StartError: there is no such stream.
    """
    load_parts(choose_contexts(settings), "commands", "CONTEXT", Context)  # imports the events' messages
    engine = create_engine(settings.database_url, session=session_settings(SERVICE_ROLE))
    version = 0
    try:
        while rows := await _read_page(engine, stream, version):
            for row in rows:
                yield json.dumps(_decode_event(row), ensure_ascii=False)
            version = rows[-1].version
    finally:
        await engine.dispose()
    if not version:
        raise StartError(f"there is no stream {stream}; a stream is <context>.<aggregate>.<id>")


async def _read_page(engine: AsyncEngine, stream: str, after: int) -> Sequence[Any]:
    """Return the next events. No transaction stays open while somebody reads them in a pager."""
    of_stream = (EVENTS.c.stream == stream) & (EVENTS.c.version > after)
    query = select(EVENTS).where(of_stream).order_by(EVENTS.c.version).limit(PAGE_SIZE)
    async with engine.connect() as connection:
        return (await connection.execute(query)).all()


def _decode_event(row: Any) -> dict[str, Any]:
    event = {
        "version": row.version,
        "type": row.type,
        "recorded_at": row.recorded_at.isoformat(),
        "metadata": row.metadata,
    }
    try:
        message = GetMessageClass(Default().FindMessageTypeByName(row.type)).FromString(row.data)
        return {**event, "data": MessageToDict(message, preserving_proto_field_name=True)}
    except Exception as error:  # the bytes may be anything, and the other events are shown
        return {**event, "error": f"{type(error).__name__}: {error}", "bytes": row.data.hex()}
