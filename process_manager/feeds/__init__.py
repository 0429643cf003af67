"""Events from JetStream to the sagas: feeds with their checkpoints, and replays of parked streams."""
