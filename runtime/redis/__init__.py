"""Redis access: its address, and pipelined commands on one connection."""
