"""Writes a repository of its own for a new context: `diptych new`."""

from importlib.util import find_spec
from pathlib import Path

from operations.new_context.files import OUTSIDE
from operations.new_context.naming import Names
from operations.new_context.writing import write
from runtime.process.start_error import StartError

NEXT = """
Next, in {context}/
  make test   check the rules in memory, then the whole context on real servers
  make up     run a local stack with this context; its scopes are {context}.read and {context}.write"""


def create(context: str, aggregate: str) -> str:
    """Write the repository into the folder of the context's name; return its paths and the next steps.

    Raises:
        StartError: a name is invalid or taken. No file was written.
    """
    names, root = Names(context, aggregate), Path(context)
    if root.exists() and any(root.iterdir()):
        raise StartError(f"NAME: the folder {context} is not empty")
    if find_spec(context) and not root.exists():
        raise StartError(f"NAME: {context} is taken: an installed package has this name")
    paths = write(OUTSIDE, names, root)
    return "\n  ".join(["Wrote", *(f"{context}/{path}" for path in paths)]) + NEXT.format(context=context)
