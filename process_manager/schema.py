"""The process manager's tables. Migrations in `migrations/` bring a database to this shape.

They lie beside the write model's and share nothing with it: another database would do.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    func,
    literal_column,
)
from sqlalchemy.dialects.postgresql import JSONB

METADATA = MetaData()
ROLE = "diptych_process_manager"

_INSTANT = DateTime(timezone=True)

SAGAS = Table(
    "sagas",
    METADATA,
    Column("saga", Text, primary_key=True, comment="<context>.<saga>"),
    Column("id", Text, primary_key=True, comment="of the aggregate whose stream it follows"),
    Column("partition", Integer, nullable=False),
    Column("version", BigInteger, nullable=False, comment="of the last event that it has heard"),
    Column("state", JSONB, nullable=False, comment="what it remembers"),
    Column("status", Text, nullable=False, comment="where it is, for people"),
    Column("ended", Boolean, nullable=False),
    Column("waiting_for", Text, nullable=False, comment="where no step is under way"),
    Column(
        "blocked_reason", Text, nullable=False, comment="why it needs an operator; empty where it does not"
    ),
    Column(
        "failed_input",
        Text,
        nullable=False,
        comment="why it cannot be told its next event; empty where it can",
    ),
    Column("correlation_id", Text, nullable=False, comment="of its first event; its steps carry it on"),
    Column("traceparent", Text, comment="of its first event"),
    Column("began_at", _INSTANT, nullable=False),
    Column("status_since", _INSTANT, nullable=False, comment="when it came to stand where it is"),
    Column("due_at", _INSTANT, comment="until when it should stand elsewhere; null for as long as it takes"),
)
DUE = func.coalesce(SAGAS.c.due_at, literal_column("'9999-01-01 00:00:00+00'::timestamptz"))
"""The order of lists: overdue ones first, those that are due at no time (`reading.NEVER`) last."""
Index("sagas_listed", SAGAS.c.saga, DUE, SAGAS.c.began_at, SAGAS.c.id)
Index("sagas_listed_by_status", SAGAS.c.saga, SAGAS.c.status, DUE, SAGAS.c.began_at, SAGAS.c.id)

STEPS = Table(
    "saga_steps",
    METADATA,
    Column("saga", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("step", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True, comment="raised by an operator's retry alone"),
    Column("partition", Integer, nullable=False),
    Column("number", Integer, nullable=False, comment="1 for the saga's first step"),
    Column("method", Text, nullable=False, comment="/<package>.<Service>/<Method>"),
    Column("request", LargeBinary, nullable=False, comment="the Protobuf message, request id included"),
    Column("request_id", Uuid, nullable=False),
    Column("decided_at", _INSTANT, nullable=False, comment="when the saga wanted it"),
    Column("due_at", _INSTANT, nullable=False, comment="when it is sent, or sent again"),
    Column("tries", Integer, nullable=False, comment="how often it was sent without an answer"),
    Column("error", Text, comment="why the last try had no answer"),
    Column("outcome", Text, comment="OK or the reason of the refusal; null until it is answered"),
    Column("answered_at", _INSTANT),
)
Index("saga_steps_due", STEPS.c.due_at, postgresql_where=STEPS.c.outcome.is_(None))

TIMERS = Table(
    "saga_timers",
    METADATA,
    Column("saga", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("due_at", _INSTANT, nullable=False),
)
Index("saga_timers_due", TIMERS.c.due_at)

OPERATOR_ACTIONS = Table(
    "saga_operator_actions",
    METADATA,
    Column("number", BigInteger, Identity(), primary_key=True),
    Column("saga", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("action", Text, nullable=False, comment="retry or abort"),
    Column("reason", Text, nullable=False),
    Column("operator", Text, nullable=False, comment="who"),
    Column("at", _INSTANT, nullable=False),
)
Index("saga_operator_actions_of", OPERATOR_ACTIONS.c.saga, OPERATOR_ACTIONS.c.id)

CHECKPOINTS = Table(
    "saga_checkpoints",
    METADATA,
    Column("saga", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("epoch", Text, nullable=False, comment="of the JetStream stream that `sequence` refers to"),
    Column("sequence", BigInteger, nullable=False, comment="all up to there was heard"),
)

LEASES = Table(
    "saga_leases",
    METADATA,
    Column("partition", Integer, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("until", _INSTANT, nullable=False, comment="by this server's clock"),
)
MANAGERS = Table(
    "saga_managers",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("until", _INSTANT, nullable=False, comment="by this server's clock"),
)
