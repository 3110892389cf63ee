"""Window, look-back, percentile and warm-up of a stream, by the rate of its events.

`outrider init` writes the values, with their reasons, and the first model of a stream finds them for settings that are
`auto`. Pure functions.
"""

import math
from dataclasses import dataclass
from datetime import timedelta

from config.budget import LEARNED_WINDOWS

DEFAULT_WARM_UP = 10_000
PATIENCE = timedelta(days=28)
"""The longest look-back: after more than four weeks few streams are as they were."""

MIN_LOOK_BACK_WINDOWS = 10
"""Smallest number of windows of a look-back."""

WINDOW_SIZES = tuple(timedelta(seconds=seconds) for seconds in (10, 30, 60, 300, 900, 3_600, 21_600))
LONGEST_WINDOW = timedelta(days=1)
MIN_WINDOW_EVENTS = 12

PERCENTILES = (99.5, 99.0, 98.0, 95.0)
MIN_EXCEEDANCES = 50
"""Number of events above the percentile in the look-back: its rate is then known to about 14%."""

MIN_REFERENCE_EXCEEDANCES = 4
"""Number of warm-up events above the percentile.

The threshold of the first hours comes from them. More are of little use: the move from the training events to the live
ones changes the exceedance by a factor of e or more (root mean square of its logarithm on real streams: 1 to 2).
"""

LOOK_BACK_WINDOWS = 330
"""Number of windows in the look-back: those that a count model is learned from, and a tenth more for those that fire.
"""

FEW_EVENTS = 60
"""Number of events of a window below which 5 outliers are too large a part of it."""

_LEAST_LOOK_BACK = timedelta(hours=24)
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_MIN_WARM_UP = 400
_WARM_UP_PER_FEATURE = 20
_WARM_UP_SHARE = 5
_MAX_WAIT_S = 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRate:
    """The rate of a stream's events in event time.

    Attributes:
        median_s: Events per second at the median hour.
        mean_s: Events per second of the whole time.
        active_share: Share of the hours that have events, for a stream with several events per hour; 1 for others.
    """

    median_s: float
    mean_s: float
    active_share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EventVolume:
    """The number and the rate of a stream's events.

    `available` is the current number of records. `grows` is True for a topic and False for a file. `rate` is None if
    unknown.
    """

    available: int
    grows: bool
    rate: EventRate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedSizes:
    """The values that a user has set, which the others follow; None for a value to find.

    `longest_window` and `longest_look_back` are bounds by other settings.
    """

    window: timedelta | None = None
    percentile: float | None = None
    look_back: timedelta | None = None
    warm_up: int | None = None
    longest_window: timedelta = LONGEST_WINDOW
    longest_look_back: timedelta = PATIENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class SizingAdvice:
    """The values that follow the rate of a stream, each with its reason.

    `window_events` is the number of events of a window at the median hour, None if the rate is unknown.
    """

    warm_up: int
    percentile: float
    window: timedelta
    look_back: timedelta
    window_events: float | None
    warm_up_reason: str
    percentile_reason: str
    window_reason: str
    look_back_reason: str


def resolve_auto(volume: EventVolume, n_features: int, fixed: FixedSizes | None = None) -> SizingAdvice:
    """Return the window, percentile, look-back and warm-up of a stream by its volume of events.

    The window is the shortest one with 12 events at the median hour. The percentile is the highest one that has 50
    events above it in a look-back of at most four weeks. The look-back holds these, 330 windows and 24 hours.
    """
    fixed = fixed or FixedSizes()
    warm_up, warm_up_reason = _choose_warm_up(volume, n_features)
    if fixed.warm_up is not None:
        warm_up, warm_up_reason = fixed.warm_up, "as configured"
    window, window_reason = _choose_window(volume.rate, fixed.longest_window)
    if fixed.window is not None:
        window, window_reason = fixed.window, "as configured"
    percentile, percentile_reason = _choose_percentile(volume.rate, warm_up, fixed.look_back or fixed.longest_look_back)
    if fixed.percentile is not None:
        percentile, percentile_reason = fixed.percentile, "as configured"
    look_back, look_back_reason = _choose_look_back(volume.rate, window, percentile, fixed.longest_look_back)
    if fixed.look_back is not None:
        look_back, look_back_reason = fixed.look_back, "as configured"
    return SizingAdvice(
        warm_up=warm_up,
        percentile=percentile,
        window=window,
        look_back=look_back,
        window_events=None if volume.rate is None else volume.rate.median_s * window.total_seconds(),
        warm_up_reason=warm_up_reason,
        percentile_reason=percentile_reason,
        window_reason=window_reason,
        look_back_reason=look_back_reason,
    )


def min_warm_up(n_features: int) -> int:
    """Return the smallest warm-up that is recommended for a number of features."""
    return max(_MIN_WARM_UP, _WARM_UP_PER_FEATURE * n_features)


def choose_ahead(window: timedelta) -> timedelta:
    """Return the lead of a partition for windows of a length: 10 minutes, or two windows if that is longer."""
    return max(timedelta(minutes=10), 2 * window)


def choose_grace(lateness_us: int) -> tuple[timedelta, str]:
    """Return the waiting time of a window that covers late events, and the reason."""
    steps = (10, 30, 60, 120, 300, 600, 1_800, 3_600, 21_600, 86_400)
    grace = next((timedelta(seconds=s) for s in steps if s * 1e6 >= lateness_us), _DAY)
    if lateness_us <= 10_000_000:
        return grace, "above the lateness of these events"
    return grace, "the 99th percentile of the lateness of these events"


def events_for_percentile(percentile: float) -> int:
    """Return the number of events that have `MIN_EXCEEDANCES` above a percentile."""
    return math.ceil(round(MIN_EXCEEDANCES * 100 / (100 - percentile), 6))


def format_rate(per_s: float) -> str:
    """Format a rate in the shortest unit with at least one event."""
    for seconds, unit in ((1, "second"), (60, "minute"), (3_600, "hour")):
        if per_s * seconds >= 1:
            return _count_per(per_s * seconds, unit)
    return _count_per(per_s * 86_400, "day")


def _count_per(count: float, unit: str) -> str:
    article = "an" if unit == "hour" else "a"
    number = f"{count:,.0f}" if count >= 100 else f"{count:.3g}"
    return f"{number} event{'' if number == '1' else 's'} {article} {unit}"


def _choose_warm_up(volume: EventVolume, n_features: int) -> tuple[int, str]:
    """Return the number of training events: a fifth of the available ones, or those that arrive within an hour."""
    least = min_warm_up(n_features)
    share = volume.available // _WARM_UP_SHARE
    if not volume.grows:
        n = min(volume.available, max(least, min(DEFAULT_WARM_UP, share)))
        what = "the default" if n == DEFAULT_WARM_UP else f"at least {least:,}" if n == least else "a fifth"
        return n, f"{what}; the file has {volume.available:,} events"
    if volume.rate is None or volume.available >= DEFAULT_WARM_UP * _WARM_UP_SHARE:
        return max(DEFAULT_WARM_UP, least), f"the default; {volume.available:,} events are available"
    expected = _round_down(max(share, int(volume.rate.mean_s * _MAX_WAIT_S)))
    n = max(least, min(DEFAULT_WARM_UP, expected))
    wait_s = max(0.0, n - volume.available) / volume.rate.mean_s
    rest = f", the others arrive within about {_format_wait(wait_s)}" if wait_s else ""
    return n, f"{volume.available:,} events are available{rest}"


def _choose_window(rate: EventRate | None, longest: timedelta) -> tuple[timedelta, str]:
    sizes = [size for size in WINDOW_SIZES if size <= longest] or [longest]
    if rate is None:
        return min(timedelta(minutes=1), longest), "the default; the rate of events is not known"
    events = [rate.median_s * size.total_seconds() for size in sizes]
    window, n = next(
        ((size, n) for size, n in zip(sizes, events, strict=True) if round(n, 6) >= MIN_WINDOW_EVENTS),
        (sizes[-1], events[-1]),
    )
    if round(n, 6) < 1 and longest >= LONGEST_WINDOW:
        window, n = LONGEST_WINDOW, rate.median_s * LONGEST_WINDOW.total_seconds()
    shortest = f"the shortest with {MIN_WINDOW_EVENTS} or more" if n >= MIN_WINDOW_EVENTS else "the longest choice"
    count = f"{n:,.0f}" if n >= 10 else f"{n:.2g}"
    return window, f"{count} events at {format_rate(rate.median_s)}, {shortest}"


def _choose_percentile(rate: EventRate | None, warm_up: int, longest: timedelta) -> tuple[float, str]:
    """Return the highest percentile that the warm-up and a look-back of the longest length have events above."""
    in_warm_up = [p for p in PERCENTILES if round(warm_up * (100 - p) / 100, 6) >= MIN_REFERENCE_EXCEEDANCES]
    within = math.inf if rate is None else rate.mean_s * longest.total_seconds()
    in_look_back = [p for p in PERCENTILES if events_for_percentile(p) <= within]
    percentile = min((in_warm_up or PERCENTILES[-1:])[0], (in_look_back or PERCENTILES[-1:])[0])
    if rate is not None and (not in_look_back or in_look_back[0] == percentile < PERCENTILES[0]):
        days = f"{longest / _DAY:.3g} days"
        if not in_look_back:
            few = f"{within * (100 - percentile) / 100:.2g}"
            return percentile, f"the lowest choice; {days} have only {few} events above it"
        higher = PERCENTILES[PERCENTILES.index(percentile) - 1]
        return percentile, (
            f"{days} have {within:,.0f} events, and {higher:g} needs {events_for_percentile(higher):,} for "
            f"{MIN_EXCEEDANCES} above it"
        )
    above = round(warm_up * (100 - percentile) / 100)
    return percentile, f"{above:,} of {warm_up:,} warm-up events lie above it"


def _choose_look_back(
    rate: EventRate | None, window: timedelta, percentile: float, longest: timedelta
) -> tuple[timedelta, str]:
    wanted = {f"{LEARNED_WINDOWS} windows for the count model": LOOK_BACK_WINDOWS * window}
    if rate is not None:
        needed = events_for_percentile(percentile)
        wanted[f"{LEARNED_WINDOWS} windows for the count model"] /= rate.active_share
        wanted[f"{needed:,} events for {MIN_EXCEEDANCES} above the percentile"] = timedelta(
            seconds=min(needed / rate.mean_s, 2 * PATIENCE.total_seconds())
        )
    reason, look_back = max(wanted.items(), key=lambda item: item[1])
    if look_back <= _LEAST_LOOK_BACK:
        return min(_LEAST_LOOK_BACK, longest), "a daily cycle"
    if look_back > longest:
        return longest, f"the longest allowed; {reason} take {_round_up(look_back) / _DAY:.3g} days"
    return min(_round_up(look_back), longest), reason


def _round_up(duration: timedelta) -> timedelta:
    """Round up to whole hours, from two days on to whole days."""
    unit = _HOUR if duration <= 2 * _DAY else _DAY
    return -(-duration // unit) * unit


def _round_down(n: int) -> int:
    """Round a number down to two significant digits."""
    unit = int("1" + "0" * max(0, len(str(n)) - 2))
    return n // unit * unit


def _format_wait(seconds: float) -> str:
    if seconds < 90:
        return "a minute"
    if seconds < 5_400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3_600:.0f} hours" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"
