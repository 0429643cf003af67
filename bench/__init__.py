"""How fast every part is, as ratios to ceilings of the same run; and the scenarios of `make load`."""
