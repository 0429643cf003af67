"""The operations server's own tables in PostgreSQL, and its sessions there."""
