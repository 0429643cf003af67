"""Calls taken by grpc.aio."""
