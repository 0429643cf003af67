"""Persons as subjects of data: `diptych forget`, and `diptych export-subject`."""
