"""Changes of events, requests and other records, as a fault or an intruder with a superuser makes them."""

ALLOW_CHANGES = "SET session_replication_role = replica"
"""Lets the session of a superuser change records: no trigger refuses it."""
FORBID_CHANGES = "RESET session_replication_role"
