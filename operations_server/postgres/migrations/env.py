"""Alembic's entry point for the operations server's revisions."""

from runtime.migrations import run_revisions

run_revisions("operations_version")
