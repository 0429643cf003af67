"""The Lua scripts that write a projection in Redis.

Redis runs a script alone and keeps its effects together, on disk and on replicas: a view, everything derived
from it and the checkpoint that covers it are stored together or not at all.

Most keys are packed into arguments instead of being declared in KEYS, so the scripts need a single primary.
Byte strings are arguments of their own, because the server's msgpack has no binary type. Amounts are decimal
strings throughout, because a Lua number is a double. contracts/view_layout.py describes the keys.
"""

from pathlib import Path

FOLDER = Path(__file__).parent


def read_script(*names: str) -> str:
    """Return the source of a script: these files, one after the other."""
    return "\n".join((FOLDER / f"{name}.lua").read_text() for name in names)
