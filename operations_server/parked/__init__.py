"""Aggregates whose events a projection cannot apply: listing them, and retrying them."""
