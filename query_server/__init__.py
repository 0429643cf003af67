"""Serves the QueryServices of all contexts from the views in Redis; holds no business logic and no state."""
