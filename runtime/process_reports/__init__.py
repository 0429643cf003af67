"""Reports of all processes about themselves, from which the operations server computes the health figures.

How it works. Each process (each worker) writes a report every INTERVAL seconds to a store that it needs
anyway: PostgreSQL (`postgres_reports`) or Redis (`redis_reports`). A report has the kind of process,
its leadership and partitions, and its measurements of the last WINDOW seconds, in slices (`window`). The
reader of the reports (`health`) adds up the slices that are younger than WINDOW by the store's clock
(`figures`). So the measurements of a killed process leave the window in time, and the process counts as
living for LIFETIME seconds more.

A report is computed from the sums of the metrics, so it adds nothing to the work that is measured.
"""
