"""`make new-context NAME=x`: writes a small but complete bounded context to build on.

Each template has the path of the file that it becomes. `NAME` and `$name` stand for the context's name.
"""
