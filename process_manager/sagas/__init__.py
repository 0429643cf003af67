"""One file per kind of saga: what it remembers, and what follows from what it is told."""
