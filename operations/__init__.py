"""The operator's `diptych` command line."""
