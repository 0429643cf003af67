"""How everything is, on one page, from the sources themselves: PostgreSQL, JetStream, Redis, health checks."""
