"""Infrastructure without business terms: processes, gRPC, JetStream, PostgreSQL, telemetry."""
