"""Recommended warm-up, percentile, window and grace of a stream, by the volume of its events."""

from dataclasses import dataclass
from datetime import timedelta

DEFAULT_WARM_UP = 10_000
_MIN_TAIL_EVENTS = 20
_PERCENTILE_CHOICES = (99.5, 99.0, 98.0, 95.0, 90.0)
_WINDOW_SIZES = tuple(
    timedelta(seconds=seconds)
    for seconds in (10, 60, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200, 86_400)
)
_MINUTE = timedelta(minutes=1)
_MIN_WINDOWS = 50
_MAX_WAIT_S = 3_600.0
_MIN_WARM_UP = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class EventVolume:
    """The number and the rate of a stream's events.

    `available` is the current number of records. `grows` is True for a topic and False for a file. `rate_s` is the
    number of events per second of event time, None if unknown. `lateness_us` is the 99th percentile of the events'
    lateness in microseconds.
    """

    available: int
    grows: bool
    rate_s: float | None = None
    lateness_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SizingAdvice:
    """The recommended settings of a stream, each with its reason."""

    warm_up: int
    percentile: float
    window: timedelta
    grace: timedelta
    warm_up_reason: str
    percentile_reason: str
    window_reason: str
    grace_reason: str


def recommend_sizes(volume: EventVolume, n_features: int) -> SizingAdvice:
    """Recommend the warm-up, a percentile supported by it, a window that can show a spike, and the grace."""
    warm_up, warm_up_reason = _recommend_warm_up(volume, n_features)
    percentile = next(
        (p for p in _PERCENTILE_CHOICES if warm_up * (100 - p) / 100 >= _MIN_TAIL_EVENTS), _PERCENTILE_CHOICES[-1]
    )
    above = round(warm_up * (100 - percentile) / 100)
    events = round(100 / (100 - percentile))
    window, window_reason = _recommend_window(volume, events)
    grace = max(timedelta(seconds=10), _round_up_duration(timedelta(microseconds=volume.lateness_us)))
    grace_reason = (
        "above the lateness of these events"
        if volume.lateness_us <= 10_000_000
        else "the 99th percentile of the lateness of these events"
    )
    return SizingAdvice(
        warm_up=warm_up,
        percentile=percentile,
        window=window,
        grace=grace,
        warm_up_reason=warm_up_reason,
        percentile_reason=f"{above:,} of {warm_up:,} warm-up events lie above it",
        window_reason=window_reason,
        grace_reason=grace_reason,
    )


def _recommend_warm_up(volume: EventVolume, n_features: int) -> tuple[int, str]:
    """Recommend the number of training events: the default if they are available or arrive within an hour."""
    least = 10 * n_features
    if volume.available >= 2 * DEFAULT_WARM_UP or (volume.grows and volume.available >= DEFAULT_WARM_UP):
        return max(DEFAULT_WARM_UP, least), "the default; as many events are available"
    if not volume.grows:
        n = max(10, min(volume.available, max(4_000, volume.available // 2, least)))
        return n, f"the file has {volume.available:,} events"
    if volume.rate_s is None:
        return max(DEFAULT_WARM_UP, least), f"the default; {volume.available:,} events are available"
    expected = _round_down(int(volume.available + volume.rate_s * _MAX_WAIT_S))
    n = max(least, _MIN_WARM_UP, min(DEFAULT_WARM_UP, expected))
    wait = max(0.0, n - volume.available) / volume.rate_s
    return n, f"{volume.available:,} events are available, the others arrive within about {_format_wait(wait)}"


def _recommend_window(volume: EventVolume, events: int) -> tuple[timedelta, str]:
    """Recommend a window with at least one expected outlier. Smaller windows show only large spikes."""
    if volume.rate_s is None:
        return (
            _MINUTE,
            f"the default; the rate of events is not known from the sample. A window of {events:,} events",
        )
    needed_s = events / volume.rate_s
    least = timedelta(seconds=10)
    if volume.grows or volume.available / volume.rate_s > _MIN_WINDOWS * 60:
        least = _MINUTE
    window = next(
        (size for size in _WINDOW_SIZES if size >= least and size.total_seconds() >= needed_s), _WINDOW_SIZES[-1]
    )
    n = volume.rate_s * window.total_seconds()
    return window, f"at {_format_rate(volume.rate_s)} about {n:,.0f} events. A window of {events:,} events"


def _round_up_duration(duration: timedelta) -> timedelta:
    steps = (10, 30, 60, 120, 300, 600, 1_800, 3_600, 21_600, 86_400)
    return next((timedelta(seconds=s) for s in steps if s >= duration.total_seconds()), timedelta(days=1))


def _round_down(n: int) -> int:
    """Round a number down to two significant digits."""
    unit = int("1" + "0" * max(0, len(str(n)) - 2))
    return n // unit * unit


def _format_rate(per_s: float) -> str:
    for seconds, unit in ((1, "second"), (60, "minute"), (3_600, "hour")):
        if per_s * seconds >= 1:
            return f"{per_s * seconds:,.3g} events a {unit}"
    return f"{per_s * 86_400:,.3g} events a day"


def _format_wait(seconds: float) -> str:
    if seconds < 90:
        return "a minute"
    return f"{seconds / 60:.0f} minutes" if seconds < 5_400 else f"{seconds / 3_600:.0f} hours"
