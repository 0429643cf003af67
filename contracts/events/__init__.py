"""The events of each context, one file per context, each with the upcasters of its older versions."""
