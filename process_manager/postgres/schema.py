"""The process manager's tables. Migrations in `migrations/` bring a database to this shape.

The tables are independent of the write model's and could be in another database.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    false,
    func,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

METADATA = MetaData()
LATER_METADATA = MetaData()
"""Tables that are younger than revision sagas_3, which reads all tables of METADATA."""
ROLE = "diptych_process_manager"
HOUSEKEEPING_ROLE = "diptych_housekeeping"
READER_ROLE = "diptych_reader"

_INSTANT = DateTime(timezone=True)

SAGAS = Table(
    "sagas",
    METADATA,
    Column("saga", Text, primary_key=True, comment="<context>.<saga>"),
    Column("id", Text, primary_key=True, comment="also of the aggregate whose stream the instance follows"),
    Column("partition", Integer, nullable=False),
    Column("version", BigInteger, nullable=False, comment="of the last processed event of its own stream"),
    Column(
        "other_streams",
        JSONB,
        nullable=False,
        server_default=text("'{}'"),
        comment="by stream: version of the last processed event, and the error of the next event",
    ),
    Column("state", JSONB, nullable=False, comment="the saga's state"),
    Column("status", Text, nullable=False, comment="SagaStatus.state"),
    Column("ended", Boolean, nullable=False),
    Column("waiting_for", Text, nullable=False, comment="for people, when no step is pending"),
    Column(
        "blocked_reason", Text, nullable=False, comment="why it needs an operator; empty if it needs none"
    ),
    Column(
        "failed_input",
        Text,
        nullable=False,
        comment="error of the next event of its own stream; empty if there is none",
    ),
    Column(
        "unreadable",
        Boolean,
        nullable=False,
        server_default=false(),
        comment="whether a manager could not read this row; its inputs wait",
    ),
    Column("correlation_id", Text, nullable=False, comment="of the first event"),
    Column("traceparent", Text, comment="of the first event"),
    Column("began_at", _INSTANT, nullable=False),
    Column("status_since", _INSTANT, nullable=False, comment="when the saga entered this status"),
    Column("due_at", _INSTANT, comment="when the saga becomes overdue; null for never"),
    Column("archived_steps", JSONB, comment="the last attempt of each archived step, by step"),
    Column(
        "latest_cause", JSONB, comment="of its latest input that was a cause: the ids that steps carry on"
    ),
)
DUE = func.coalesce(SAGAS.c.due_at, literal_column("'9999-01-01 00:00:00+00'::timestamptz"))
"""The order of lists: the longest overdue first, those without a due time (`saga_reader.NEVER`) last."""
Index("sagas_listed", SAGAS.c.saga, DUE, SAGAS.c.began_at, SAGAS.c.id)
Index("sagas_listed_by_status", SAGAS.c.saga, SAGAS.c.status, DUE, SAGAS.c.began_at, SAGAS.c.id)
Index("sagas_ended", SAGAS.c.status_since, SAGAS.c.saga, SAGAS.c.id, postgresql_where=SAGAS.c.ended)
OPEN, BLOCKED = SAGAS.c.ended.is_(False) | SAGAS.c.unreadable, SAGAS.c.blocked_reason != ""
"""Conditions of queries that these partial indexes serve."""
Index("sagas_blocked", SAGAS.c.saga, postgresql_where=BLOCKED)
Index("sagas_open", SAGAS.c.saga, SAGAS.c.id, postgresql_where=OPEN)

STEPS = Table(
    "saga_steps",
    METADATA,
    Column("saga", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("step", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True, comment="increased only by an operator's retry"),
    Column("partition", Integer, nullable=False),
    Column("number", Integer, nullable=False, comment="1 for the saga's first step"),
    Column("method", Text, nullable=False, comment="/<package>.<Service>/<Method>"),
    Column("request", LargeBinary, nullable=False, comment="the Protobuf message, request id included"),
    Column("request_id", Uuid, nullable=False),
    Column("decided_at", _INSTANT, nullable=False, comment="when the saga added the step"),
    Column("due_at", _INSTANT, nullable=False, comment="when to send it, or to send it again"),
    Column("tries", Integer, nullable=False, comment="number of times it was sent"),
    Column("error", Text, comment="why the last try had no answer"),
    Column(
        "denied",
        Boolean,
        nullable=False,
        server_default=false(),
        comment="whether the last try was denied for its token or scopes",
    ),
    Column("outcome", Text, comment="OK or the reason of the rejection; null until answered"),
    Column("answered_at", _INSTANT),
    Column("correlation_id", Text, comment="of the input that caused the step"),
    Column("causation_id", Text, comment="the id of that input"),
    Column("traceparent", Text, comment="of that input"),
)
TARGET: ColumnElement[str] = literal_column("split_part(method, '/', 2)")
"""The service of a step's method, as `targets.target_of` returns it."""
Index(
    "saga_steps_due",
    STEPS.c.saga,
    TARGET,
    STEPS.c.partition,
    STEPS.c.due_at,
    postgresql_where=STEPS.c.outcome.is_(None),
)

TIMERS = Table(
    "saga_timers",
    METADATA,
    Column("saga", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("due_at", _INSTANT, nullable=False),
    Column("postponed_to", _INSTANT, comment="when to fire it, after a delivery that failed"),
    Column("stopped_at", _INSTANT, comment="since when its instance lacks an event that it cannot read"),
    Column("correlation_id", Text, comment="of the input that set the timer"),
    Column("causation_id", Text, comment="the id of that input"),
    Column("traceparent", Text, comment="of that input"),
)
Index(
    "saga_timers_due",
    TIMERS.c.saga,
    TIMERS.c.partition,
    func.coalesce(TIMERS.c.postponed_to, TIMERS.c.due_at),
    postgresql_where=TIMERS.c.stopped_at.is_(None),
)

DEADLINES = Table(
    "saga_deadlines",
    LATER_METADATA,
    Column("saga", Text, primary_key=True),
    Column("id", Text, primary_key=True, comment="of the instance that begins at the deadline"),
    Column("partition", Integer, nullable=False),
    Column("due_at", _INSTANT, nullable=False),
    Column("postponed_to", _INSTANT, comment="when to look again whether inputs precede it"),
    Column("set_at", _INSTANT, nullable=False, comment="when the event that sets it was delivered"),
    Column("correlation_id", Text, nullable=False, comment="of that event"),
    Column("traceparent", Text, comment="of that event"),
)
Index(
    "saga_deadlines_due",
    DEADLINES.c.saga,
    DEADLINES.c.partition,
    func.coalesce(DEADLINES.c.postponed_to, DEADLINES.c.due_at),
)

OPERATOR_ACTIONS = Table(
    "saga_operator_actions",
    METADATA,
    Column("number", BigInteger, Identity(), primary_key=True),
    Column("saga", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("action", Text, nullable=False, comment="retry or abort"),
    Column("reason", Text, nullable=False),
    Column("operator", Text, nullable=False, comment="name of the operator"),
    Column("at", _INSTANT, nullable=False),
)
Index("saga_operator_actions_of", OPERATOR_ACTIONS.c.saga, OPERATOR_ACTIONS.c.id)

CHECKPOINTS = Table(
    "saga_checkpoints",
    METADATA,
    Column("saga", Text, primary_key=True),
    Column("stream_type", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("epoch", Text, nullable=False, comment="of the JetStream stream that `sequence` refers to"),
    Column("sequence", BigInteger, nullable=False, comment="the last processed message"),
)

BEGINNINGS = Table(
    "saga_beginnings",
    METADATA,
    Column("saga", Text, primary_key=True),
    Column("at", _INSTANT, comment="events recorded before are passed over; null to begin with the first"),
)
CALLERS = Table(
    "saga_callers",
    LATER_METADATA,
    Column("saga", Text, primary_key=True),
    Column("subject", Text, nullable=False, comment="of the token with which its steps are sent"),
    Column("since", _INSTANT, nullable=False, comment="when it was recorded or changed"),
)
PARKED_STREAMS = Table(
    "saga_parked_streams",
    METADATA,
    Column("saga", Text, primary_key=True),
    Column("stream", Text, primary_key=True, comment="a stream whose events wait, since one has no instance"),
    Column("stream_type", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("version", BigInteger, nullable=False, comment="of the first event that waits"),
    Column(
        "latest",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="version of the latest event that waits; 0 if unknown",
    ),
    Column(
        "error",
        Text,
        nullable=False,
        comment="why that event could not be delivered; empty while the stream is read",
    ),
    Column("since", _INSTANT, nullable=False),
)

LEASES = Table(
    "saga_leases",
    METADATA,
    Column("contexts", Text, primary_key=True, server_default="", comment="of its group of managers"),
    Column("partition", Integer, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("until", _INSTANT, nullable=False, comment="by this server's clock"),
)
MANAGERS = Table(
    "saga_managers",
    METADATA,
    Column("contexts", Text, primary_key=True, server_default="", comment="of its group of managers"),
    Column("name", Text, primary_key=True),
    Column("until", _INSTANT, nullable=False, comment="by this server's clock"),
    Column(
        "silent_targets",
        JSONB,
        nullable=False,
        server_default=text("'{}'"),
        comment="by gRPC service that does not answer its steps: the error and since when",
    ),
)
