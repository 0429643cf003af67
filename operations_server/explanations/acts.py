"""Finds the acts of operators on an aggregate: retries of its views, and acts that were refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from diptych.operations.v1.explanation_pb2 import Explanation
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from operations_server.acts import DONE
from operations_server.explanations.chain import Entry
from operations_server.explanations.words import cut, name_sender

MAX_SEARCHED = 5_000
"""The latest acts are searched, of all operators."""
MAX_ACTS = 50

# Acts on sagas that were done are with the saga, which knows its own name.
FIND = text(f"""
SELECT recorded_at, subject, on_behalf_of, act, target, reason, outcome
FROM (SELECT * FROM operator_acts ORDER BY number DESC LIMIT {MAX_SEARCHED}) a
WHERE (request ->> 'id' = :id OR request -> 'ids' ? :id)
  AND NOT (act IN ('RetrySaga', 'AbortSaga') AND outcome = '{DONE}')
ORDER BY recorded_at DESC LIMIT {MAX_ACTS}
""")  # noqa: S608 - composed of constants


@dataclass(frozen=True, slots=True)
class OperatorAct:
    """A recorded act."""

    recorded_at: datetime
    subject: str
    on_behalf_of: str | None
    act: str
    target: str
    reason: str
    outcome: str | None
    """DONE, or the reason of the error; None while the act goes on, and if its end is not on record."""


class ActReader:
    """Reads the record of operators' acts.

    Args:
        database: in the role of the operations server.
    """

    def __init__(self, database: AsyncEngine) -> None:
        self._database = database

    async def find(self, id_: str) -> Sequence[OperatorAct]:
        """Return the latest acts on the aggregates of an id."""
        async with self._database.connect() as connection:
            return [OperatorAct(*row) for row in await connection.execute(FIND, {"id": id_})]


def create_act_entry(act: OperatorAct) -> Entry:
    outcome = {DONE: "done", None: "its outcome is not on record"}.get(act.outcome, f"refused, {act.outcome}")
    sender = name_sender(act.subject, act.on_behalf_of)
    text = f"{sender} asked for {act.act} of {cut(act.target, 300)}: {outcome}; {cut(act.reason, 500)}"
    return Entry(act.recorded_at, Explanation.KIND_ACT, text)
