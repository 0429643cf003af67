"""Traces and metrics over OpenTelemetry."""
