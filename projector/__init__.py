"""The projector: applies events from JetStream to the views in Redis."""
