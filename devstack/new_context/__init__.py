"""`make new-context NAME=x`: a small bounded context that is served, tested and verified, to be changed.

The templates are its files, with `$name` for its name, at the places where they will lie.
"""
