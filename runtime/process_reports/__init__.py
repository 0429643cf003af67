"""Reports of all processes about themselves, from which the operations server computes the health figures.

How it works. Each process (each worker) writes a report every INTERVAL seconds to a store that it needs
anyway: PostgreSQL (`postgres_reports`) or Redis (`redis_reports`). A report has what the process is, what
it leads or holds, and what it has measured in the last WINDOW seconds, in slices (`window`). Whoever
reads the reports (`health`) adds up the slices that are younger than WINDOW by the store's clock (`figures`).
So the measurements of a killed process leave the window in time, and the process counts as living for
LIFETIME seconds more.

A report is a sum of what the metrics have counted anyway, so the work that is measured pays nothing for it.
"""
