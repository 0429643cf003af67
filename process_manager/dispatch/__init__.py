"""The execution of steps and timers after they are committed."""
