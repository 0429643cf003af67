"""`diptych verify`: everything that is derived from the events, compared with another fold of them.

The code here shares the contracts (protos, runtime) with the processes and nothing else: no projector, no
evolve. A bug that both had in common would hide from itself.
"""
