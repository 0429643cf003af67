"""Formats that processes share: stream names, event envelope, event types, view layout, tokens."""
