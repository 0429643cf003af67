"""The operations server's own tables and its role. The revisions in `migrations/` make them."""

ROLE = "diptych_operations"
"""Reads the tables of the other processes, and records acts and refused calls."""
AUDITOR_ROLE = "diptych_auditor"
"""Of `diptych audit export`: reads what is sealed, and records exports."""
SEALER_ROLE = "diptych_sealer"
"""Reads what is sealed, and writes checkpoints."""
