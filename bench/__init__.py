"""Benchmarks of every part, as ratios to ceilings of the same run; and the scenarios of `make load`."""

import os

os.environ.setdefault(
    "GRPC_VERBOSITY", "error"
)  # else it reports on stderr each process that the bench starts
