"""The projections, one file per view: its event handlers and its index entries."""
