"""Progress of a warm-up: rate of events, remaining time and text. Pure functions of the given time."""

from collections import deque
from collections.abc import Sequence

from config.time_format import format_rough_duration, format_rounded_duration
from consumers.discovery.rejections import RejectionGroup
from storage.control.warm_up import RejectedRecords, WarmUpProgress

MAX_STORED_REJECTIONS = 5
"""The number of groups of rejected records that are stored and shown."""

_RATE_WINDOW_S = 60.0
_MIN_EVENTS_FOR_RATE = 10


class WarmUpRate:
    """Rate of events over the last minute.

    Older observations are dropped: a backlog read at the start does not predict the rate of new events.
    """

    def __init__(self) -> None:
        self._observations: deque[tuple[float, int]] = deque()

    def remaining_s(self, now_s: float, n: int, wanted: int) -> float | None:
        """Record `n` events at `now_s` and return the estimated remaining time; None while there is no rate."""
        rate = self.events_per_s(now_s, n)
        if n >= wanted:
            return 0.0
        return None if rate is None else (wanted - n) / rate

    def events_per_s(self, now_s: float, n: int, *, min_events: int = 1) -> float | None:
        """Record `n` events at `now_s` and return the rate; None with fewer than `min_events` in the last minute."""
        self._observations.append((now_s, n))
        while now_s - self._observations[0][0] > _RATE_WINDOW_S:
            self._observations.popleft()
        then_s, n_then = self._observations[0]
        if n - n_then < min_events or now_s <= then_s:
            return None
        return (n - n_then) / (now_s - then_s)


class CaughtUpRate:
    """Rate of new events of a log that has been read to its end.

    A minute with few events is too short to estimate the rate of a slow stream. The rate is then that of the whole
    log: its events over the time since its first record.
    """

    def __init__(self) -> None:
        self._recent = WarmUpRate()

    def events_per_s(self, now_s: float, n: int, log_age_s: float | None) -> float | None:
        """Record `n` events at `now_s` and return the rate; None while it is unknown.

        Args:
            now_s: A time of the monotonic clock, in seconds.
            n: The number of usable events in the log.
            log_age_s: The seconds since the first record; None if records have no timestamp.
        """
        recent = self._recent.events_per_s(now_s, n, min_events=_MIN_EVENTS_FOR_RATE)
        if recent is not None:
            return recent
        if n > 0 and log_age_s is not None and log_age_s > 0:
            return n / log_age_s
        return self._recent.events_per_s(now_s, n)


def to_rejected_records(groups: Sequence[RejectionGroup]) -> tuple[RejectedRecords, ...]:
    """Return the largest groups of rejected records as values to store."""
    return tuple(
        RejectedRecords(reason=group.reason, n=group.n, detail=group.detail, hint=group.hint)
        for group in groups[:MAX_STORED_REJECTIONS]
    )


def format_progress(progress: WarmUpProgress) -> str:
    """Return the progress as text: warming up: 312 of 10,000 events, about 40 min left."""
    text = f"warming up: {min(progress.events, progress.wanted):,} of {progress.wanted:,} events"
    if progress.rejected:
        text = f"{text}, {_format_rejected(progress)}"
    if progress.events >= progress.wanted:
        return f"{text}, fitting"
    estimate = _format_estimate(progress)
    return f"{text}, {estimate}" if estimate else text


def format_rejection(group: RejectedRecords | RejectionGroup) -> str:
    """Return a group of rejected records as text: missing_feature 12 (amount: absent; nearest field ...)."""
    hint = f"; {group.hint}" if group.hint else ""
    return f"{group.reason} {group.n:,} ({group.detail}{hint})"


def format_rejections(groups: Sequence[RejectedRecords | RejectionGroup]) -> str:
    """Return the largest groups of rejected records as text."""
    shown = [format_rejection(group) for group in groups[:MAX_STORED_REJECTIONS]]
    return ", ".join([*shown, *(["..."] if len(groups) > MAX_STORED_REJECTIONS else [])])


def _format_rejected(progress: WarmUpProgress) -> str:
    share = "all" if progress.rejected >= progress.records else f"{progress.rejected:,} of"
    largest = f": {format_rejection(progress.rejections[0])}" if progress.rejections else ""
    more = f" and {len(progress.rejections) - 1} more" if len(progress.rejections) > 1 else ""
    return f"{share} {progress.records:,} records rejected{largest}{more}"


def _format_estimate(progress: WarmUpProgress) -> str | None:
    if progress.caught_up:
        return f"caught up; {_format_wait(progress)}"
    if progress.left_s is not None:
        return f"about {format_rough_duration(max(1.0, progress.left_s))} left"
    return None if progress.events or progress.records else "waiting for the first"


def _format_wait(progress: WarmUpProgress) -> str:
    """Return the estimate for a log that was read to its end."""
    if not progress.events:
        return "waiting for the first usable event" if progress.records else "waiting for the first"
    if progress.events_per_s is None or progress.left_s is None:
        return "waiting for more"
    takes = f"at {format_rate(progress.events_per_s)} this takes {format_rounded_duration(progress.left_s * 1e6)}"
    if progress.fits_early_in_s is None:
        return takes
    return f"{takes}, but it fits with fewer after {format_rounded_duration(max(1.0, progress.fits_early_in_s) * 1e6)}"


def format_rate(events_per_s: float) -> str:
    """Return a rate in the largest unit of time with at least one event: 37 events/h."""
    for per_s, unit in ((1, "s"), (60, "min"), (3_600, "h")):
        if events_per_s * per_s >= 1:
            return f"{events_per_s * per_s:,.0f} events/{unit}"
    return f"{events_per_s * 86_400:.2g} events/d"
