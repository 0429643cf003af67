"""The write side: gRPC CommandServices over an event-sourced model in PostgreSQL, and the relay."""
