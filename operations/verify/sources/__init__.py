"""Read-only access to PostgreSQL, JetStream and Redis for `diptych verify`."""
