"""The bounded contexts: one folder each, with the domain and its binding to the protos."""
