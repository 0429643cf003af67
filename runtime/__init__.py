"""Plumbing that every process shares: settings, addresses of events and views, the gRPC edge, telemetry."""
