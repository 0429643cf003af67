"""The time at which the doors of a show open, from the clocks of its place."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from command_server.contexts.ticketing.domain.messages import LocalTime
from command_server.kernel.decider import Rejected


def to_utc(local: LocalTime) -> datetime:
    """Return a local time in UTC.

    Raises:
        Rejected: the time zone is unknown, the calendar lacks the day, or clocks that are put forward skip
            the time, or show it twice as they are put back.
    """
    try:
        zone = ZoneInfo(local.time_zone)
    except (ValueError, OSError, LookupError):  # a folder or an odd name, besides unknown ones
        raise Rejected("TIME_ZONE_UNKNOWN", time_zone=local.time_zone) from None
    try:
        naive = datetime(local.year, local.month, local.day, local.hour, local.minute)
    except ValueError:
        raise Rejected("DOORS_TIME_INVALID", doors=local) from None
    first, second = (naive.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first.astimezone(zone).replace(tzinfo=None) != naive:
        raise Rejected("DOORS_TIME_SKIPPED", doors=naive, time_zone=local.time_zone)
    if first != second:
        raise Rejected("DOORS_TIME_REPEATED", doors=naive, time_zone=local.time_zone)
    return first
