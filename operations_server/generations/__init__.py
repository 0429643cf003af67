"""Generations of projections: building, comparing, switching and pruning them."""
