"""Sagas: processes that react to events, send commands, wait, and compensate for incomplete work."""
