"""Configuration for Prometheus, Alertmanager and Grafana."""
