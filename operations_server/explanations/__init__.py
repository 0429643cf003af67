"""Explanations: what happened to an aggregate, an event or a request, in order and in words."""
