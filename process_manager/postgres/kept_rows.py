"""The rows of instances as this process wrote them last, so that most groups need not read them. Pure.

How it works:

- An instance mostly gets an input just after this process has written its row. The group then takes the row
  from here. It makes no difference to the result: the statement that writes the group compares each row with
  the stored one in any case (`xmin`), and a unit whose rows have changed writes nothing and is read.
- Whether a stream is parked is not recorded here. The statement that writes checks it (`not_parked`).
- A group takes rows out, and its write brings them back. So after a lost race, a failure or a lost
  connection the next group reads.
- Only rows without a failure are kept, and only inputs that the comparison protects use them (`accepts`).
- The time is that of PostgreSQL in a recent statement, and what has passed since its answer. Unless
  PostgreSQL's clock was set within the last MAX_AGE, it is never ahead of that clock, and at most MAX_DELAY
  behind it.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

from process_manager.groups.instance import Instance
from process_manager.groups.unit_of_work import UnitOfWork
from process_manager.postgres.due_work import Feed
from process_manager.postgres.stored_rows import Key, Needs, StoredRows

MAX_ROWS = 1_000
MAX_LENGTH = 16_384
"""Characters of the state and positions of a row that is kept."""
MAX_AGE = 1.0
"""Seconds after which PostgreSQL's clock is read again; it may have been set."""
MAX_DELAY = 0.05
"""Seconds between a statement and its answer up to which the answer tells the time."""


class KeptRows:
    """The rows that the groups of one process share."""

    def __init__(self) -> None:
        self._rows: dict[Key, dict[str, Any]] = {}
        self._clock: tuple[datetime, float] | None = None
        """PostgreSQL's time, and when its answer arrived."""

    def clear(self) -> None:
        self._rows.clear()
        self._clock = None

    def take(self, inputs: Sequence[Needs], feeds: Collection[Feed]) -> StoredRows | None:
        """Remove and return the rows that inputs need; None if they have to be read.

        Args:
            inputs: the inputs.
            feeds: those whose checkpoints are needed.
        """
        keys = {key for each in inputs for key in each.instances}
        rows = {key: row for key in keys if (row := self._rows.pop(key, None)) is not None}
        now = self._estimate_time()
        if feeds or now is None or len(rows) < len(keys) or not all(each.accepts(rows) for each in inputs):
            return None
        decoded = {key: {**row, **_decode(row)} for key, row in rows.items()}
        return StoredRows(now, decoded, {}, {}, {}, are_kept=True)

    def _estimate_time(self) -> datetime | None:
        if self._clock is None:
            return None
        at, answered_at = self._clock
        age = monotonic() - answered_at
        return at + timedelta(seconds=age) if age <= MAX_AGE else None

    def keep_time(self, at: datetime, sent_at: float, answered_at: float) -> None:
        """Keep PostgreSQL's time.

        Args:
            at: its time.
            sent_at: when the statement was sent, by the monotonic clock.
            answered_at: when its answer arrived.
        """
        if answered_at - sent_at <= MAX_DELAY:
            self._clock = at, answered_at

    def keep_rows(self, unit: UnitOfWork, written: Mapping[Key, Mapping[str, Any]], revision: int) -> None:
        """Keep the rows of a unit that was written.

        Args:
            unit: the unit.
            written: the rows of `sagas` that it has written.
            revision: of these rows.
        """
        for key, row in written.items():
            instance = unit.saved[key]
            if _is_plain(unit, instance) and not row["ended"] and _measure(row) <= MAX_LENGTH:
                self._rows.pop(key, None)
                self._rows[key] = {**row, **_list_steps(instance), "revision": revision}
        while len(self._rows) > MAX_ROWS:
            del self._rows[next(iter(self._rows))]


def _is_plain(unit: UnitOfWork, instance: Instance) -> bool:
    """Return whether nothing of an instance waits, so that its row and its steps are all that there is."""
    return not (unit.stops(instance) or unit.resumes(instance) or instance.was_unreadable)


def _measure(row: Mapping[str, Any]) -> int:
    return len(row["state"]) + len(row["other_streams"])


def _list_steps(instance: Instance) -> dict[str, Any]:
    """Return the columns of the steps as they are once the instance is written."""
    pending = instance.pending | {(step.step, step.attempt) for step in instance.steps}
    steps = sorted({*instance.attempts.items(), *pending})
    return {
        "steps": [step for step, _ in steps],
        "attempts": [attempt for _, attempt in steps],
        "pending": [each in pending for each in steps],
        "archived_steps": None,  # those are among the attempts
        "operator_actions": instance.operator_actions,
        "unreadable": False,
    }


def _decode(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("state", "other_streams", "latest_cause")
    return {name: json.loads(row[name], object_pairs_hook=_order) for name in names if row[name] is not None}


def _order(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object with its keys in the order of `jsonb`, so that a saga always sees the same state."""
    return dict(sorted(pairs, key=lambda pair: (len(name := pair[0].encode()), name)))
