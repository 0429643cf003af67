"""Calls taken by h2corn: HTTP/2 is the library's, gRPC is ours."""
