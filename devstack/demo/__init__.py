"""`make demo`: a demonstration of the system that checks each of its steps."""
