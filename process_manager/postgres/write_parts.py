"""The parts of the statement that writes a group: guards, and changes of several rows each. Pure.

In the SQL of a part, `{n}` stands for its rows, named n, and `{held}` for the condition that the guards of a
row's unit of work hold.
"""

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import cached_property

_FEED = "saga text, stream_type text, partition int"
_INSTANCE = "saga text, id text"
_STREAM = "saga text, stream text"
_STATE = (
    "version bigint, other_streams jsonb, state jsonb, status text, ended bool, waiting_for text,"
    " blocked_reason text, failed_input text, status_since timestamptz, due_at timestamptz,"
    " latest_cause jsonb"
)
_CAUSE = "correlation_id text, causation_id text, traceparent text"
_NEW = f"{_STATE}, partition int, correlation_id text, traceparent text, began_at timestamptz"


@dataclass(frozen=True)
class Part:
    """A guard or a change.

    Args:
        row: the names and types of the columns of its rows, besides the number of their unit.
        sql: the statement.
    """

    row: str
    sql: str

    @cached_property
    def columns(self) -> Mapping[str, str]:
        """The types of the columns by name."""
        return dict(column.split() for column in f"unit int, {self.row}".split(", "))

    @cached_property
    def tables(self) -> Set[str]:
        """The names of the tables that it locks or changes."""
        return frozenset(re.findall(r"\b(?:sagas|saga_\w+)\b", self.sql))


def _insert(table: str, row: str, values: Mapping[str, str] | None = None, conflict: str = "") -> Part:
    """Return the part that inserts rows.

    Args:
        table: into which.
        row: the columns of the rows.
        values: the columns to insert that differ from these, or that are not of the table.
        conflict: what follows.
    """
    columns = {name: f"n.{name}" for name in Part(row, "").columns if name != "unit"} | dict(values or {})
    inserted = {name: value for name, value in columns.items() if value}
    return Part(
        row,
        f"INSERT INTO {table} ({', '.join(inserted)}) SELECT {', '.join(inserted.values())}"  # noqa: S608 - constants
        f" FROM {{n}} WHERE {{held}} {conflict}",
    )


def _lock_all(table: str, condition: str) -> Part:
    """Return the guard of all rows of an instance, for changes of rows that were not read one by one."""
    rows = f"FROM {table} l WHERE l.saga = n.saga AND l.id = n.id AND {condition}"
    locked = f"SELECT count(*) FROM (SELECT {rows} FOR UPDATE SKIP LOCKED) locked"  # noqa: S608 - constants
    return Part(_INSTANCE, f"SELECT n.unit FROM {{n}} WHERE ({locked}) = (SELECT count(*) {rows})")  # noqa: S608


def _list_assignments(row: str) -> str:
    return ", ".join(f"{name} = n.{name}" for name in Part(row, "").columns if name != "unit")


GUARDS: Mapping[str, Part] = {
    "checkpoints": Part(
        f"{_FEED}, epoch text, sequence bigint",
        "SELECT n.unit FROM {n} JOIN saga_checkpoints c USING (saga, stream_type, partition, epoch, sequence)"
        " ORDER BY n.saga, n.stream_type, n.partition FOR UPDATE OF c SKIP LOCKED",
    ),
    "instances": Part(
        f"{_INSTANCE}, revision xid",
        "SELECT n.unit FROM {n} JOIN sagas s ON s.saga = n.saga AND s.id = n.id AND s.xmin = n.revision"
        " ORDER BY n.saga, n.id FOR UPDATE OF s SKIP LOCKED",
    ),
    "parked": Part(
        f"{_STREAM}, revision xid",
        "SELECT n.unit FROM {n} JOIN saga_parked_streams p"
        " ON p.saga = n.saga AND p.stream = n.stream AND p.xmin = n.revision"
        " ORDER BY n.saga, n.stream FOR UPDATE OF p SKIP LOCKED",
    ),
    "not_parked": Part(
        _STREAM,
        "SELECT n.unit FROM {n} WHERE NOT EXISTS ("
        "SELECT FROM saga_parked_streams p WHERE p.saga = n.saga AND p.stream = n.stream OFFSET 0)",
    ),
    "outcomes": Part(
        f"{_INSTANCE}, step text, attempt int",
        "SELECT n.unit FROM {n} JOIN saga_steps s USING (saga, id, step, attempt) WHERE s.outcome IS NULL"
        " ORDER BY n.saga, n.id, n.step, n.attempt FOR UPDATE OF s SKIP LOCKED",
    ),
    "fired": Part(
        f"{_INSTANCE}, name text, due_at timestamptz",
        "SELECT n.unit FROM {n} JOIN saga_timers t USING (saga, id, name, due_at) WHERE t.stopped_at IS NULL"
        " ORDER BY n.saga, n.id, n.name FOR UPDATE OF t SKIP LOCKED",
    ),
    "pending_steps": _lock_all("saga_steps", "l.outcome IS NULL"),
    "timers": _lock_all("saga_timers", "true"),
}
"""They lock rows and return the unit of each row that is as it was read, and that nobody else has locked."""

CHANGES: Mapping[str, Part] = {
    "first_checkpoints": _insert("saga_checkpoints", f"{_FEED}, epoch text, sequence bigint"),
    "advanced": Part(
        f"{_FEED}, epoch text, sequence bigint",
        "UPDATE saga_checkpoints c SET epoch = n.epoch, sequence = n.sequence FROM {n} WHERE c.saga = n.saga"
        " AND c.stream_type = n.stream_type AND c.partition = n.partition AND {held}",
    ),
    "answered": Part(
        f"{_INSTANCE}, step text, attempt int, outcome text, at timestamptz",
        "UPDATE saga_steps s SET outcome = n.outcome, answered_at = n.at, error = NULL, denied = false,"
        " tries = s.tries + 1 FROM {n} WHERE s.saga = n.saga AND s.id = n.id AND s.step = n.step"
        " AND s.attempt = n.attempt AND {held}",
    ),
    "updated": Part(
        f"{_INSTANCE}, {_STATE}",
        f"UPDATE sagas s SET {_list_assignments(_STATE)}, unreadable = false"  # noqa: S608 - constants
        " FROM {n} WHERE s.saga = n.saga AND s.id = n.id AND {held}",
    ),
    "unreadable": Part(
        f"{_INSTANCE}, other_streams jsonb, blocked_reason text, failed_input text, due_at timestamptz",
        "UPDATE sagas s SET failed_input = n.failed_input, blocked_reason = n.blocked_reason,"
        " due_at = n.due_at, unreadable = true, other_streams = coalesce(n.other_streams, s.other_streams)"
        " FROM {n} WHERE s.saga = n.saga AND s.id = n.id AND {held}",
    ),
    "begun": _insert("sagas", f"{_INSTANCE}, {_NEW}"),
    "steps": _insert(
        "saga_steps",
        f"{_INSTANCE}, partition int, step text, attempt int, number int, method text, request bytea,"
        f" request_id uuid, at timestamptz, {_CAUSE}",
        {"at": "", "decided_at": "n.at", "due_at": "n.at", "tries": "0"},
    ),
    "hurried_steps": Part(
        f"{_INSTANCE}, without text, at timestamptz",
        "UPDATE saga_steps s SET due_at = n.at FROM {n} WHERE s.saga = n.saga AND s.id = n.id"
        " AND s.outcome IS NULL AND {held}"
        " AND NOT s.step || '/' || s.attempt = ANY (SELECT jsonb_array_elements_text(n.without::jsonb))",
    ),
    "set_timers": _insert(
        "saga_timers",
        f"{_INSTANCE}, name text, partition int, due_at timestamptz, stopped_at timestamptz, {_CAUSE}",
        conflict="ON CONFLICT (saga, id, name) DO UPDATE"
        " SET due_at = excluded.due_at, postponed_to = NULL, stopped_at = excluded.stopped_at,"
        " correlation_id = excluded.correlation_id, causation_id = excluded.causation_id,"
        " traceparent = excluded.traceparent",
    ),
    "cancelled_timers": Part(
        f"{_INSTANCE}, name text",
        "DELETE FROM saga_timers t USING {n}"
        " WHERE t.saga = n.saga AND t.id = n.id AND t.name = n.name AND {held}",
    ),
    "other_timers": Part(
        f"{_INSTANCE}, without text, resumes bool, stops bool, hurries bool, at timestamptz",
        "UPDATE saga_timers t SET"
        " due_at = CASE WHEN n.resumes AND t.stopped_at IS NOT NULL"
        " THEN t.due_at + greatest(n.at - t.stopped_at, interval '0') ELSE t.due_at END,"
        " postponed_to = CASE WHEN n.hurries OR n.resumes AND t.stopped_at IS NOT NULL"
        " THEN NULL ELSE t.postponed_to END,"
        " stopped_at = CASE WHEN n.stops THEN coalesce(t.stopped_at, n.at)"
        " WHEN n.resumes THEN NULL ELSE t.stopped_at END"
        " FROM {n} WHERE t.saga = n.saga AND t.id = n.id AND {held}"
        " AND NOT t.name = ANY (SELECT jsonb_array_elements_text(n.without::jsonb))",
    ),
    "first_parked": _insert(
        "saga_parked_streams",
        f"{_STREAM}, stream_type text, partition int, version bigint, latest bigint, error text,"
        " since timestamptz",
        conflict="ON CONFLICT (saga, stream) DO UPDATE"
        " SET version = least(saga_parked_streams.version, excluded.version),"
        " latest = greatest(saga_parked_streams.latest, excluded.latest)",
    ),
    "parked_on": Part(
        f"{_STREAM}, version bigint, latest bigint, error text",
        "UPDATE saga_parked_streams p SET version = n.version, latest = n.latest, error = n.error FROM {n}"
        " WHERE p.saga = n.saga AND p.stream = n.stream AND {held}",
    ),
    "unparked": Part(
        _STREAM,
        "DELETE FROM saga_parked_streams p USING {n}"
        " WHERE p.saga = n.saga AND p.stream = n.stream AND {held}",
    ),
    "actions": _insert(
        "saga_operator_actions",
        f"{_INSTANCE}, action text, reason text, operator text, at timestamptz",
    ),
}
"""No row is changed by two of them, since only one of the changes would count."""
