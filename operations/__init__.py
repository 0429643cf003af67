"""What an operator runs: the `diptych` command line."""
