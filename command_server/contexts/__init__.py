"""The bounded contexts: each folder holds one context's rules and the line that binds them to its protos."""
