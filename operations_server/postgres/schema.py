"""The operations server's own tables and its role. The revisions in `migrations/` make them."""

ROLE = "diptych_operations"
"""Reads the tables of the other processes, and records acts and refused calls."""
SEALER_ROLE = "diptych_sealer"
"""Reads what is sealed, and writes checkpoints."""
