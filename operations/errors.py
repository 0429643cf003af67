"""What goes wrong on the command line: one line for people, and a non-zero exit."""


class Failed(Exception):
    """A command could not do what it was asked; the message says why in one line."""
