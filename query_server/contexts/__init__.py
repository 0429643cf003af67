"""The queries of each bounded context, one module per context."""
