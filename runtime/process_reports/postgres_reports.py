"""Reports in PostgreSQL: an unlogged table, so that they cost no WAL and are gone after a crash."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from runtime.postgres import autocommit
from runtime.process_reports.report import INSTANCE, KEPT, WINDOW
from runtime.process_reports.stored_report import MAX_REPORTS, StoredReport

TABLE = """
CREATE UNLOGGED TABLE IF NOT EXISTS process_reports (
  instance text PRIMARY KEY, reported_at timestamptz NOT NULL, report text NOT NULL
)
"""
GRANT = "GRANT SELECT, INSERT, UPDATE, DELETE ON process_reports TO {role}"

# A report of the future was written before PostgreSQL's clock was set back.
WRITE = text(
    "WITH ended AS (DELETE FROM process_reports WHERE instance <> :instance"
    " AND reported_at NOT BETWEEN now() - make_interval(secs => :kept) AND now() + interval '1 minute')"
    " INSERT INTO process_reports (instance, reported_at, report) VALUES (:instance, now(), :report)"
    " ON CONFLICT (instance) DO UPDATE SET reported_at = now(), report = excluded.report"
)
READ = text(
    "SELECT instance, extract(epoch FROM now() - reported_at)::float8 AS age, report FROM process_reports"
    " WHERE reported_at > now() - make_interval(secs => :window) ORDER BY reported_at DESC LIMIT :limit"
)


class PostgresReports:
    """Writes the report of this process, and reads those of all.

    Args:
        engine: of a role that may do so.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = autocommit(engine)

    async def write(self, report: bytes) -> None:
        values = {"instance": INSTANCE, "report": report.decode(), "kept": KEPT}
        async with self._engine.connect() as connection:
            await connection.execute(WRITE, values)

    async def read(self) -> list[StoredReport]:
        async with self._engine.connect() as connection:
            rows = await connection.execute(READ, {"window": WINDOW, "limit": MAX_REPORTS})
        return [StoredReport.parse(*row) for row in rows]
