"""A process from start to end: settings, logs, signals, workers."""
