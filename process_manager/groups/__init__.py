"""Group commit of inputs: which rows they need, what they change, and how those that fail are set apart."""
