"""Incarnations of the database. A restore from a backup starts a new one.

An incarnation is a UUID of version 7, which begins with the time in milliseconds. A later incarnation is
therefore the greater string. By this order a query server distinguishes tokens from before a restore from
tokens that are ahead of its views.
"""

import secrets
from time import time
from uuid import UUID


def create(previous: str = "") -> str:
    """Create an incarnation that is greater than the previous one, even if the clock has gone back."""
    minimum = (UUID(previous).int >> 80) + 1 if previous else 0
    milliseconds = max(int(time() * 1000), minimum)
    high, low = secrets.randbits(12), secrets.randbits(62)
    return str(UUID(int=milliseconds << 80 | 7 << 76 | high << 64 | 0b10 << 62 | low))
