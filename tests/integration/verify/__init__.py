"""`diptych verify`, tried by planting faults into a system at rest."""
