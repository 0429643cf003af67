"""The error that ends a process or a command before its work begins."""


class StartError(Exception):
    """A process cannot start, for instance because a setting is invalid. The message is one line of text."""
