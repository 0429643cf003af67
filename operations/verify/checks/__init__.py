"""The checks of `diptych verify`, a file for each kind of derived data."""
