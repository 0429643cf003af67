"""The kernel's ports on real ground: PostgreSQL, and memory for tests."""
