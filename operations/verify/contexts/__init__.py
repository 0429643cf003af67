"""Independent folds of each context's events; they share no code with the rules or the projections."""
