"""The write model in PostgreSQL: the event store, its schema and its migrations."""
