"""`make demo`: the system shown at work, each step checked."""
