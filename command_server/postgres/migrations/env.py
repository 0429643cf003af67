"""Alembic's entry point for the write model's revisions."""

from runtime.migrations import run_revisions

run_revisions("alembic_version")
