"""The gRPC edge: the server of every process, and the interceptors in front of the handlers."""
