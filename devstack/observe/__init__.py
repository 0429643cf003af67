"""`make observe`: Prometheus, Alertmanager and a trace viewer beside the local stack."""
