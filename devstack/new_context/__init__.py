"""`make new-context NAME=x`: writes a small bounded context, complete with tests and verification, to build on.

The files in `templates/` have the paths of the written files; `NAME` and `$name` stand for the context's name.
"""
