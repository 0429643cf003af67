"""Formats that processes share: stream names, event envelope, view layout, tokens, upcasters."""
