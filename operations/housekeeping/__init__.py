"""Housekeeping: removes what its retention no longer keeps, in small batches, one process at a time."""
