"""The lives of a database. A restore from a backup begins another; a later one has the greater name.

Names are UUIDs of version 7, which begin with the time in milliseconds, so that a query server can tell a
token of before a restore from one that its views have yet to follow.
"""

import secrets
from time import time
from uuid import UUID


def after(earlier: str = "") -> str:
    """Return the name of a new life, greater than that of an earlier one even if clocks have gone back."""
    least = (UUID(earlier).int >> 80) + 1 if earlier else 0
    milliseconds = max(int(time() * 1000), least)
    high, low = secrets.randbits(12), secrets.randbits(62)
    return str(UUID(int=milliseconds << 80 | 7 << 76 | high << 64 | 0b10 << 62 | low))
