"""Deadlines of sagas whose instances begin only then, kept as rows until they fire."""
