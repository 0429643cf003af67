"""The operations server: what operators ask and do, at one address, whatever else is unreachable."""
