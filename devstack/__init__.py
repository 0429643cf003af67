"""The system on one machine: `make up`, throw-away stacks, tokens, the demo, new contexts."""
