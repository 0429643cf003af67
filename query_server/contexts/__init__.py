"""One file for each bounded context: its queries."""
