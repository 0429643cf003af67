"""`diptych verify`: compares everything that is derived from the events with an independent fold of them.

This package shares the protos, `contracts` and `runtime` with the processes and nothing else: no projector,
no `evolve`. A bug in shared code would hide from the comparison.
"""
