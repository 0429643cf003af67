"""The errors that end a process or a command before its work begins."""


class StartError(Exception):
    """A process cannot start, for instance because its port is taken. The message is one line of text."""

    exit_code = 1


class InvalidSetting(StartError):
    """A setting is malformed, or the file that it names is. The message begins with the setting's name."""

    exit_code = 2


class NotAsked(StartError):
    """A server that the command needs could not be asked, or did not take the question."""

    exit_code = 2
