"""The tables of the write model. The revisions in `migrations/` create them.

Hot tables have unique keys and minimal grants instead of foreign keys, which would cost 15 to 30 % of
PostgreSQL's time here. `events.position` needs CACHE 1, because the relay publishes in order of positions.
With a larger cache, a later version of a stream could get a lower position than an earlier version.
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
    Sequence,
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
HOUSEKEEPING_ROLE = "diptych_housekeeping"
READER_ROLE = "diptych_reader"
"""Of `diptych verify` and `diptych rehearse`."""

_INSTANT = DateTime(timezone=True)

STREAMS = Table(
    "streams",
    METADATA,
    Column("id", Text, primary_key=True, comment="<context>.<aggregate>.<id>"),
    Column("type", Text, nullable=False, comment="<context>.<aggregate>"),
    Column("version", BigInteger, nullable=False, comment="number of events in the stream"),
    Column("updated_at", _INSTANT, nullable=False, comment="time of the last event's decision"),
    Column(
        "state", JSON, comment="snapshot: fold of the events up to state_version, by code of this fingerprint"
    ),
    Column("state_version", BigInteger, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("digest", LargeBinary, comment="of the last event that has one"),
)

SNAPSHOTS = Table(
    "snapshots",
    METADATA,
    Column("stream", Text, primary_key=True),
    Column("fingerprint", Text, primary_key=True, comment="of the code that folded the state"),
    Column("version", BigInteger, nullable=False, comment="number of folded events"),
    Column("state", JSON, nullable=False),
    Column("kept_at", _INSTANT, nullable=False),
    comment="snapshots of long streams by code other than that of the snapshot in `streams`",
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
    Column("digest", LargeBinary, comment="link of the stream's chain; null if an earlier release wrote it"),
    UniqueConstraint("stream", "version", name="events_stream_version"),
)

EVENT_INDEX = Table(
    "event_index",
    METADATA,
    Column("index", Text, primary_key=True, comment="<context>.<name>, as a context declares it"),
    Column("key", Text, primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False, comment="position of the event"),
    comment="finds earlier events by key; built from `events` when a command needs it",
)

EVENT_INDEX_PROGRESS = Table(
    "event_index_progress",
    METADATA,
    Column("index", Text, primary_key=True),
    Column("position", BigInteger, nullable=False, comment="the index has all events up to this position"),
)

OUTBOX = Table(
    "outbox",
    METADATA,
    Column("position", BigInteger, primary_key=True, autoincrement=False, comment="position of the event"),
    Column("epoch", Uuid, comment="epoch of the JetStream stream with the event; null while pending"),
    Column("sequence", BigInteger, comment="sequence in that stream; null while pending"),
    Column("published_at", _INSTANT, comment="time of the mark; null while pending"),
)
Index("outbox_pending", OUTBOX.c.position, postgresql_where=OUTBOX.c.sequence.is_(None))
Index("outbox_published", OUTBOX.c.published_at, postgresql_using="brin")

REQUESTS = Table(
    "requests",
    METADATA,
    Column("caller", Text, primary_key=True, comment="subject of the access token"),
    Column("request_id", Uuid, primary_key=True),
    Column("type", Text, nullable=False, comment="the command's name, <package>.<Command>"),
    Column("hash", LargeBinary, nullable=False, comment="of the request without its id, with its key"),
    Column("outcome", Text, nullable=False, comment="ACCEPTED, or the reason of the rejection"),
    Column("rejection", JSON, comment="kind and details of a rejection"),
    Column("receipt", JSON, comment="of an accepted command: its streams with their versions"),
    Column("recorded_at", _INSTANT, nullable=False),
    comment="answers to repeated requests; housekeeping removes old ones",
)
Index("requests_recorded_at", REQUESTS.c.recorded_at)

AUDIT = Table(
    "audit",
    METADATA,
    Column("recorded_at", _INSTANT, nullable=False),
    Column("caller", Text, nullable=False, comment="subject of the access token"),
    Column("request_id", Uuid, nullable=False),
    Column("type", Text, nullable=False, comment="the command's name, <package>.<Command>"),
    Column("outcome", Text, nullable=False, comment="ACCEPTED, or the reason of the rejection"),
    Column("stream", Text, nullable=False, comment="the command's first stream"),
    Column("on_behalf_of", Text, comment="the person that the caller acts for, from the access token"),
    Column("correlation_id", Text, comment="null: the request id"),
    Column("causation_id", Text),
    Column("traceparent", Text),
    Column("duration_us", Integer, nullable=False, comment="from arrival to the decision"),
    Column("number", BigInteger, Sequence("audit_number"), server_default=text("nextval('audit_number')")),
    Column("request_digest", LargeBinary, comment="of the row in `requests`"),
    comment="who did what: every accepted and rejected command, in partitions by month",
    postgresql_partition_by="RANGE (recorded_at)",
)
Index("audit_recorded_at", AUDIT.c.recorded_at, postgresql_using="brin")

REFUSED_CALLS = Table(
    "refused_calls",
    METADATA,
    Column("recorded_at", _INSTANT, nullable=False, server_default=func.now()),
    Column("method", Text, nullable=False),
    Column("reason", Text, nullable=False, comment="code of the refusal"),
    Column("caller", Text, comment="null for an unauthenticated call"),
    Column("details", JSON, nullable=False),
    Column("peer", Text, nullable=False),
    Column("calls", BigInteger, nullable=False, server_default=text("1"), comment="number of equal calls"),
    Column(
        "number",
        BigInteger,
        Sequence("refused_calls_number"),
        server_default=text("nextval('refused_calls_number')"),
    ),
    comment="calls that the edge refused: unauthenticated, denied or invalid; in partitions by month",
    postgresql_partition_by="RANGE (recorded_at)",
)
Index("refused_calls_recorded_at", REFUSED_CALLS.c.recorded_at, postgresql_using="brin")

RELAY_STATE = Table(
    "relay_state",
    METADATA,
    Column(
        "id", Integer, primary_key=True, server_default=text("1"), comment="always 1: the table has one row"
    ),
    Column(
        "incarnation", Uuid, nullable=False, comment="identity of the database; replaced by every restore"
    ),
    Column("leader", Text, comment="holder of the lease"),
    Column("lease_until", _INSTANT, nullable=False, comment="end of the lease, by this server's clock"),
    Column("epoch", Uuid, comment="epoch of the JetStream stream that `sequence` refers to"),
    Column("sequence", BigInteger, nullable=False, comment="last sequence that is marked in the outbox"),
)

RETENTION = Table(
    "retention",
    METADATA,
    Column("kind", Text, primary_key=True),
    Column("kept_since", _INSTANT, nullable=False, comment="rows from before this time may be removed"),
    Column("at", _INSTANT, nullable=False, comment="when this was recorded, before the removal"),
)

HOUSEKEEPING = Table(
    "housekeeping",
    METADATA,
    Column(
        "id", Integer, primary_key=True, server_default=text("1"), comment="always 1: the table has one row"
    ),
    Column("leader", Text, comment="holder of the lease"),
    Column("lease_until", _INSTANT, nullable=False, comment="end of the lease, by this server's clock"),
)
