"""Benchmarks of every part, as ratios to ceilings of the same run; and the scenarios of `make load`."""
