"""Faults under the whole system: each test goes through all real processes and ends with `diptych verify`."""
