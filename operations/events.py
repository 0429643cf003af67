"""Decodes a stream of the event store for people."""

import json
from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.descriptor_pool import Default
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from sqlalchemy import select

from command_server.kernel.context import Context
from command_server.postgres.event_store import session_settings
from command_server.postgres.schema import EVENTS, SERVICE_ROLE
from runtime.postgres import create_engine
from runtime.process.contexts import choose_contexts, load_parts
from runtime.process.settings import Settings
from runtime.process.start_error import StartError


async def decode_stream(settings: Settings, stream: str) -> AsyncIterator[str]:
    """Yield a stream's events as lines of JSON, in order.

    Raises:
        StartError: there is no such stream.
    """
    load_parts(choose_contexts(settings), "commands", "CONTEXT", Context)  # imports the events' messages
    engine = create_engine(settings.database_url, session=session_settings(SERVICE_ROLE))
    query = select(EVENTS).where(EVENTS.c.stream == stream).order_by(EVENTS.c.version)
    is_empty = True
    try:
        async with engine.connect() as connection, connection.stream(query) as rows:
            async for row in rows:
                is_empty = False
                yield json.dumps(_decode_event(row), ensure_ascii=False)
    finally:
        await engine.dispose()
    if is_empty:
        raise StartError(f"there is no stream {stream}; a stream is <context>.<aggregate>.<id>")


def _decode_event(row: Any) -> dict[str, Any]:
    message = GetMessageClass(Default().FindMessageTypeByName(row.type)).FromString(row.data)
    return {
        "version": row.version,
        "type": row.type,
        "recorded_at": row.recorded_at.isoformat(),
        "data": MessageToDict(message, preserving_proto_field_name=True),
        "metadata": row.metadata,
    }
