"""The gRPC edge: one server for every process, and what each call passes before its handler runs."""
