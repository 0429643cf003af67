"""How any command is executed: deciders, the ports they need, and the group commit that runs them.

Nothing here knows a business word, a server or a wire format.
"""
