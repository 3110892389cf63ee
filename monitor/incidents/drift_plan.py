"""The horizons that a stream is tested over: its cycle, or those of the configuration. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass

from config.time_format import DAY_US, WEEK_US
from monitor.incidents.drift_days import DriftDay
from monitor.incidents.drift_test import CYCLES_US, FIRST_VERDICT_CYCLES
from monitor.statistics.day_correlation import shows_season

_CYCLES_OF_SEASONS = {"hour_of_day": DAY_US, "hour_of_week": WEEK_US}
_SEASON_DAYS = 28
_WEEK_READY_DAYS = 7 * FIRST_VERDICT_CYCLES


@dataclass(frozen=True, slots=True, kw_only=True)
class HorizonPlan:
    """The lengths that a stream is tested over. `cycles` are whole local days or weeks."""

    cycles: tuple[int, ...]
    horizons: tuple[int, ...]


def active_cycle(season: str | None, days: Sequence[DriftDay], known_us: int | None) -> int | None:
    """Return the cycle of a stream, or None without one.

    Args:
        season: The season of the threshold in force, `hour_of_day` or `hour_of_week`; None if it has none.
        days: The whole days since the start of the base.
        known_us: The cycle that was found before. It is kept until four weeks of days show none.
    """
    of_threshold = None if season is None else _CYCLES_OF_SEASONS.get(season)
    if of_threshold is not None:
        return of_threshold
    pairs = [day.correlation for day in days[-_SEASON_DAYS:] if day.correlation is not None]
    if shows_season(pairs):
        return DAY_US
    return known_us if len(pairs) < _SEASON_DAYS else None


def plan_horizons(lengths_us: Sequence[int], cycle_us: int | None, days: int) -> HorizonPlan:
    """Return the lengths to test. With a cycle it is the only one; a week is tested as days for the first ten weeks.

    Args:
        lengths_us: The configured horizons that hold a window.
        cycle_us: Result of `active_cycle`.
        days: Number of whole days since the start of the base.
    """
    if cycle_us is not None:
        return HorizonPlan(cycles=(cycle_us if days >= _WEEK_READY_DAYS else DAY_US,), horizons=())
    return HorizonPlan(
        cycles=tuple(length for length in lengths_us if length in CYCLES_US),
        horizons=tuple(length for length in lengths_us if length not in CYCLES_US),
    )
