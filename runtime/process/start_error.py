"""The one error that ends a process, or a command, before it has begun its work."""


class StartError(Exception):
    """A process cannot start: a setting is wrong, a port is taken. The message is a line for the operator."""
