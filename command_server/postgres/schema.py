"""The write model's tables. Migrations in `migrations/` bring a database to this shape.

Hot tables carry unique keys and narrow grants rather than foreign keys, which cost 15 to 30 % of
PostgreSQL's time here. `events.position` keeps CACHE 1: the relay's order depends on it.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSON

METADATA = MetaData()
SERVICE_ROLE = "diptych_service"
RELAY_ROLE = "diptych_relay"

_INSTANT = DateTime(timezone=True)

STREAMS = Table(
    "streams",
    METADATA,
    Column("id", Text, primary_key=True, comment="<context>.<aggregate>.<id>"),
    Column("type", Text, nullable=False, comment="<context>.<aggregate>"),
    Column("version", BigInteger, nullable=False, comment="how many events the stream has"),
    Column("updated_at", _INSTANT, nullable=False, comment="when the last event was decided"),
    Column(
        "state", JSON, comment="a cache of the events' fold, at state_version, by code of this fingerprint"
    ),
    Column("state_version", BigInteger, nullable=False),
    Column("fingerprint", Text, nullable=False),
)

EVENTS = Table(
    "events",
    METADATA,
    Column("position", BigInteger, Identity(always=True, cache=1), primary_key=True),
    Column("stream", Text, nullable=False),
    Column("version", BigInteger, nullable=False, comment="1 for the stream's first event, without gaps"),
    Column("type", Text, nullable=False, comment="the full name of the Protobuf message"),
    Column("data", LargeBinary, nullable=False, comment="the Protobuf message"),
    Column("metadata", JSON, nullable=False, comment="actor, command, correlation and causation ids, trace"),
    Column("recorded_at", _INSTANT, nullable=False),
    UniqueConstraint("stream", "version", name="events_stream_version"),
)

OUTBOX = Table(
    "outbox",
    METADATA,
    Column("position", BigInteger, primary_key=True, autoincrement=False, comment="of the event"),
    Column("epoch", Uuid, comment="of the JetStream stream that it was published to; null while pending"),
    Column("sequence", BigInteger, comment="in that stream; null while pending"),
    Column("published_at", _INSTANT, comment="when it was marked; null while pending"),
)
Index("outbox_pending", OUTBOX.c.position, postgresql_where=OUTBOX.c.sequence.is_(None))
Index("outbox_published", OUTBOX.c.published_at, postgresql_using="brin")

REQUESTS = Table(
    "requests",
    METADATA,
    Column("caller", Text, primary_key=True, comment="who sent the command: the subject of the token"),
    Column("request_id", Uuid, primary_key=True),
    Column("type", Text, nullable=False, comment="the command's name, <package>.<Command>"),
    Column("hash", LargeBinary, nullable=False, comment="SHA-256 of the request without its id"),
    Column("outcome", Text, nullable=False, comment="ACCEPTED, or the reason of the rejection"),
    Column("rejection", JSON, comment="kind and details of a rejection"),
    Column("receipt", JSON, comment="of an accepted command: every stream it touched with its version"),
    Column("stream", Text, nullable=False, comment="the stream that the command was for"),
    Column("on_behalf_of", Text, comment="the person that the caller acts for, from its token"),
    Column("correlation_id", Text, nullable=False),
    Column("causation_id", Text),
    Column("traceparent", Text),
    Column("duration_us", Integer, nullable=False, comment="from arrival to the decision"),
    Column("recorded_at", _INSTANT, nullable=False),
)

REFUSED_CALLS = Table(
    "refused_calls",
    METADATA,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("method", Text, nullable=False),
    Column("reason", Text, nullable=False, comment="why it went no further"),
    Column("caller", Text, comment="null where nobody could be made out"),
    Column("details", JSON, nullable=False),
    Column("peer", Text, nullable=False),
    Column("recorded_at", _INSTANT, nullable=False, server_default=func.now()),
)

RELAY_STATE = Table(
    "relay_state",
    METADATA,
    Column("id", Integer, primary_key=True, server_default=text("1"), comment="always 1: there is one row"),
    Column("incarnation", Uuid, nullable=False, comment="set anew when the database is restored"),
    Column("leader", Text, comment="the relay that leads"),
    Column("lease_until", _INSTANT, nullable=False, comment="until when, by this server's clock"),
    Column("epoch", Uuid, comment="of the JetStream stream that `sequence` refers to"),
    Column("sequence", BigInteger, nullable=False, comment="the last sequence marked in the outbox"),
)
