"""The state of the whole system, read from its processes and stores whatever of them is alive."""
