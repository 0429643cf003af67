"""`diptych verify`, tested by planting faults in a system at rest."""
