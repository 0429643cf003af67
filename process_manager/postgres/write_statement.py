"""The one statement that writes the changes of a group, composed of the parts that the group needs. Pure.

How it works:

- Guards come first: they lock each row that the changes depend on, and compare it with what was read. A row
  of `sagas` or `saga_parked_streams` is unchanged if its `xmin` is, the transaction that wrote it; a
  checkpoint has not moved; a step has no outcome; a timer has not been fired or set anew.
- A unit of work holds if all its guards do. Only the changes of these units are written; the others lost a
  race, and run again on fresh rows. So two managers with the same instances do no harm, and each input takes
  effect once.
- Rows that another transaction has locked are skipped, as if they had changed: no unit waits for the rows of
  another one. Timers and pending steps that were not read are guarded together, all those of an instance.
- A lock on a whole table (an index is built) and a key that an open transaction has inserted are waited for,
  as long as `lock_timeout`. Then the units that use other tables are written by themselves.
- An instance or a checkpoint that another transaction has just inserted fails the statement
  (`unique_violation`).
- The statement is a transaction of its own, so its locks last no longer than it does, even if this process is
  stopped or killed meanwhile.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

from process_manager.postgres.write_parts import CHANGES, GUARDS, Part

PARTS: Mapping[str, Part] = {**GUARDS, **CHANGES}
IS_HELD = "n.unit = ANY (ARRAY(SELECT unit FROM held))"
COUNT_GUARDS = """
counted AS MATERIALIZED (SELECT unit, count(*) AS guards FROM locked GROUP BY unit),
held AS MATERIALIZED (
  SELECT e.unit FROM unnest($1::int[], $2::int[]) AS e (unit, guards)
  WHERE e.guards = coalesce((SELECT c.guards FROM counted c WHERE c.unit = e.unit), 0)
)
"""
RESULT = "SELECT unit, pg_current_xact_id()::xid AS revision, clock_timestamp() AS now FROM held"


@dataclass(frozen=True)
class Write:
    """The statement with its parameters, one array for each."""

    sql: str
    parameters: Sequence[Sequence[Any]]


def compose(units: int, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Write:
    """Return the statement that writes these rows.

    It returns the units that it has written, the revision of their rows (`xmin`), and PostgreSQL's time.

    Args:
        units: the number of units, which are numbered from 0.
        rows: the rows of each part, by its name.
    """
    names = tuple(name for name in PARTS if rows.get(name))
    guards = [0] * units
    for name in GUARDS.keys() & rows.keys():
        for row in rows[name]:
            guards[row["unit"]] += 1
    parameters: list[Sequence[Any]] = [range(units), guards]
    for name in names:
        parameters += [[row[column] for row in rows[name]] for column in PARTS[name].columns]
    return Write(_compose(names), parameters)


@cache
def _compose(names: Sequence[str]) -> str:
    numbers = count(3)  # of the parameters
    sql = {name: _complete(PARTS[name], numbers) for name in names}
    guards = [f"SELECT unit FROM ({sql[name]}) {name}" for name in GUARDS if name in sql]  # noqa: S608 - constants
    locked = " UNION ALL ".join(guards or ["SELECT 0 AS unit WHERE false"])
    changes = "".join(f", {name} AS ({sql[name]})" for name in CHANGES if name in sql)
    return f"WITH locked AS MATERIALIZED ({locked}), {COUNT_GUARDS}{changes} {RESULT}"


def _complete(part: Part, numbers: Iterator[int]) -> str:
    arrays = ", ".join(f"${next(numbers)}::{type_}[]" for type_ in part.columns.values())
    return part.sql.format(n=f"unnest({arrays}) AS n ({', '.join(part.columns)})", held=IS_HELD)
