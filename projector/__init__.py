"""The projector: hears events from JetStream and keeps the views in Redis."""
