"""What people run: the local stack, the `diptych` command line, the demo."""
