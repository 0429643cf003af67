"""TLS of servers and clients: certificates from files, read again when they change."""
