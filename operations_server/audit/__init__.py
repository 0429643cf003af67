"""The sealer, which writes checkpoints of the records, and proofs for single events."""
