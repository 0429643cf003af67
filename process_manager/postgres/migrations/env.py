"""Alembic's entry point for the sagas' revisions."""

from runtime.migrations import run_revisions

run_revisions("process_manager_version")
