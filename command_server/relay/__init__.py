"""The relay: publishes the events of the outbox to JetStream, in order and each of them once."""
