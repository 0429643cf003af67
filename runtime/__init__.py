"""Plumbing without a business word: processes, gRPC, JetStream, PostgreSQL, telemetry."""
