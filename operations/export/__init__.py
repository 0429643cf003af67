"""`diptych events export`: events by position, as JSON lines or Parquet."""
