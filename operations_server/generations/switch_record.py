"""The record of switches and rollbacks in PostgreSQL, each with the comparison that came before it.

How it works. A switch is recorded before it is done, so that none is without its record, and its outcome
after it. An outcome that cannot be recorded is logged, and stays null.
"""

import json
from typing import Any

from diptych.operations.v1.generations_pb2 import GenerationComparison
from google.protobuf.json_format import MessageToDict
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from contracts.view_layout import View
from runtime.grpc import caller
from runtime.grpc.rpc_error import RpcError
from runtime.process import logs

BEGIN = text("""
INSERT INTO projection_switches
  (projection, from_generation, to_generation, subject, reason, forced, comparison)
VALUES
  (:projection, :from_generation, :to_generation, :subject, :reason, :forced, CAST(:comparison AS jsonb))
RETURNING number
""")
END = text("UPDATE projection_switches SET outcome = :outcome WHERE number = :number")

log = logs.get_logger(__name__)


class SwitchRecord:
    """Records switches.

    Args:
        database: in the role of the operations server.
    """

    def __init__(self, database: AsyncEngine) -> None:
        self._database = database

    async def begin(
        self, serving: View, name: str, request: Any, comparison: GenerationComparison | None
    ) -> int:
        """Record a switch from the view that serves to the generation of this name; return its number.

        Raises:
            RpcError: `WRITE_MODEL_UNAVAILABLE`.
        """
        values = {
            "projection": serving.projection,
            "from_generation": serving.generation,
            "to_generation": name,
            "subject": caller.current().subject,
            "reason": request.reason,
            "forced": bool(getattr(request, "force", False)),
            "comparison": json.dumps(MessageToDict(comparison)) if comparison else None,
        }
        try:
            async with self._database.begin() as connection:
                return int(await connection.scalar(BEGIN, values) or 0)
        except (SQLAlchemyError, OSError) as error:
            message = "the act was not done, because it cannot be recorded"
            raise RpcError("WRITE_MODEL_UNAVAILABLE", message, retry_after=1.0) from error

    async def end(self, number: int, outcome: str) -> None:
        """Record the outcome of a switch."""
        try:
            async with self._database.begin() as connection:
                await connection.execute(END, {"number": number, "outcome": outcome})
        except (SQLAlchemyError, OSError) as error:
            log.error("Outcome of a switch not recorded", number=number, outcome=outcome, error=repr(error))
