"""Bounds on the times of a query: points in time, or durations back from the latest row."""

from datetime import UTC, datetime, timedelta

from config.errors import ConfigError
from config.units import parse_duration, parse_time, to_us

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

TimeBound = str | datetime | timedelta
"""RFC 3339 text, a datetime with a time zone, or a duration (such as "1h") back from the stream's latest row."""


def resolve_time_bound(bound: TimeBound | None, latest_us: int | None) -> int | None:
    """Return a bound in microseconds since 1970; a duration counts back from the latest row.

    Args:
        bound: The bound. None is no bound.
        latest_us: The time of the latest row. None means there are no rows; a duration is then no bound.

    Raises:
        ConfigError: The text is neither a duration nor a time, or the datetime has no time zone.
    """
    if bound is None:
        return None
    if isinstance(bound, datetime):
        if bound.tzinfo is None:
            raise ConfigError(f"the time {bound} has no time zone; add one, such as datetime.UTC")
        return to_us(bound - _EPOCH)
    if isinstance(bound, timedelta):
        return None if latest_us is None else latest_us - to_us(bound)
    try:
        back = parse_duration(bound)
    except ValueError:
        try:
            return parse_time(bound)
        except ValueError:
            forms = "write a duration such as 1h30m, or a time such as 2026-01-31T00:00:00Z"
            raise ConfigError(f"{bound!r} is neither a duration nor a time; {forms}") from None
    return None if latest_us is None else latest_us - to_us(back)
