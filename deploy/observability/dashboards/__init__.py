"""Two Grafana dashboards: callers and machinery. `make dashboards` writes their JSON."""
