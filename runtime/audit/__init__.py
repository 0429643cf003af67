"""The records that the audit seals, as they are read from PostgreSQL."""
