"""The relay: publishes what the outbox holds to JetStream, in order, and exactly once into the stream."""
