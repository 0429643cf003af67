"""The version of this installation: the file VERSION of the repository, as the package's metadata has it."""

from importlib.metadata import version

VERSION = version("diptych")
