"""The checks of `diptych verify`, one module for each kind of derived data."""
