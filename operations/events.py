"""Decodes a stream of the event store for people."""

import json
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path
from typing import Any

import diptych
from google.protobuf.descriptor_pool import Default
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from sqlalchemy import select

from command_server.postgres.event_store import session_settings
from command_server.postgres.schema import EVENTS, SERVICE_ROLE
from runtime.postgres import create_engine
from runtime.process.start_error import StartError


async def decode_stream(database_url: str, stream: str) -> AsyncIterator[str]:
    """Yield a stream's events as lines of JSON, in order.

    Raises:
        StartError: there is no such stream.
    """
    _load_stubs()
    engine = create_engine(database_url, session=session_settings(SERVICE_ROLE))
    query = select(EVENTS).where(EVENTS.c.stream == stream).order_by(EVENTS.c.version)
    try:
        async with engine.connect() as connection:
            rows = (await connection.execute(query)).all()
    finally:
        await engine.dispose()
    if not rows:
        raise StartError(f"there is no stream {stream}; a stream is <context>.<aggregate>.<id>")
    for row in rows:
        yield json.dumps(_decode_event(row), ensure_ascii=False)


def _decode_event(row: Any) -> dict[str, Any]:
    message = GetMessageClass(Default().FindMessageTypeByName(row.type)).FromString(row.data)
    return {
        "version": row.version,
        "type": row.type,
        "recorded_at": row.recorded_at.isoformat(),
        "data": MessageToDict(message, preserving_proto_field_name=True),
        "metadata": row.metadata,
    }


def _load_stubs() -> None:
    """Import the stubs of all events, so that the descriptor pool has their messages."""
    for root in map(Path, diptych.__path__):
        for file in root.rglob("events_pb2.py"):
            import_module(".".join(("diptych", *file.relative_to(root).with_suffix("").parts)))
