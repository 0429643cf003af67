"""The write side: CommandServices on an event-sourced model in PostgreSQL, and the relay to JetStream."""
