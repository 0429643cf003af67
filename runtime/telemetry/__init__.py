"""Traces and metrics, exported with OpenTelemetry."""
