"""Process infrastructure: settings, logs, signals, exit codes, workers."""
