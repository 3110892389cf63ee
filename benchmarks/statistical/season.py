"""Season: how often it is activated, and the realised false-alarm rate of each hour of the day.

Counts of one-hour windows are negative binomial around a daily course of the rate, which may also wander (AR(1) of its
logarithm, 0.98 an hour). The season and the count model are learned from the same days; the realised rate of an hour is
the exact tail of its true distribution.
"""

import numpy as np
from scipy import stats

from benchmarks.statistical import table
from config.time_format import DAY_US, HOUR_US
from monitor.incidents.effective_threshold import scale_rate
from monitor.incidents.spike import spike_count_threshold
from monitor.statistics.counts import CountModel, fit_count_model
from monitor.statistics.season import Season
from monitor.statistics.season_fit import CellCounts, decide_season

EVENTS = 600
START_US = 1_767_571_200_000_000
ALPHA = 0.5 / 168
"""The spike share of 1/week for windows of one hour."""

_WANDER_MEMORY = 0.98


def _hour_factors(amplitude: float) -> np.ndarray:
    """Return a course of the day with one peak of e^amplitude and one trough, with mean 1, (24,)."""
    factors = np.exp(amplitude * np.sin(2 * np.pi * (np.arange(24) + 0.5) / 24))
    return factors / factors.mean()


def _counts(
    rng: np.random.Generator, days: int, mean: float, dispersion: float, amplitude: float, wander: float
) -> CellCounts:
    means = mean * np.tile(_hour_factors(amplitude), days)
    if wander:
        steps = rng.normal(size=len(means)) * wander * np.sqrt(1 - _WANDER_MEMORY**2)
        log_rate = np.empty(len(means))
        log_rate[0] = rng.normal() * wander
        for i in range(1, len(means)):
            log_rate[i] = _WANDER_MEMORY * log_rate[i - 1] + steps[i]
        means = means * np.exp(log_rate - wander**2 / 2)
    if dispersion > 1:
        means = rng.gamma(means / (dispersion - 1), dispersion - 1)
    mid_us = START_US + np.arange(len(means)) * HOUR_US + HOUR_US // 2
    return CellCounts(mid_us=mid_us, events=np.full(len(means), EVENTS), outliers=rng.poisson(means))


def _learn(counts: CellCounts, days: int, *, with_season: bool) -> tuple[CountModel, Season | None]:
    season = None
    if with_season:
        tick_us = START_US + days * DAY_US
        season = decide_season(counts, None, "hour_of_day", "UTC", tick_us=tick_us, size_us=HOUR_US).season
    factors = None if season is None else season.factors(counts.mid_us)
    return fit_count_model(0, 0, counts.outliers, counts.events, factors=factors, alpha=ALPHA), season


def _realised_by_hour(
    count_model: CountModel, season: Season | None, mean: float, dispersion: float, amplitude: float
) -> np.ndarray:
    """Return realised over promised probability of a false alarm for each hour, (24,)."""
    mids = START_US + np.arange(24) * HOUR_US + HOUR_US // 2
    factors = np.ones(24) if season is None else season.factors(mids)
    ratios = np.empty(24)
    for hour, true_mean in enumerate(mean * _hour_factors(amplitude)):
        at_hour = count_model if season is None else scale_rate(count_model, season, float(factors[hour]))
        count = spike_count_threshold(at_hour, EVENTS, ALPHA).count
        if dispersion > 1:
            tail = stats.nbinom.sf(count, true_mean / (dispersion - 1), 1 / dispersion)
        else:
            tail = stats.poisson.sf(count, true_mean)
        ratios[hour] = tail / ALPHA
    return ratios


def show(*, quick: bool, seed: int) -> None:
    """Print the tables."""
    samples = 40 if quick else 250
    rng = np.random.default_rng(seed)
    activated = []
    for mean, dispersion, wander, amplitude in (
        (0.3, 1, 0, 0),
        (0.3, 2, 0, 0),
        (3, 2, 0, 0),
        (3, 1.5, 0.5, 0),
        (3, 2, 0, 0.3),
        (3, 2, 0, 0.6),
        (0.3, 1, 0, 1.0),
    ):
        shares = []
        for days in (4, 7, 14, 28):
            found = [
                _learn(_counts(rng, days, mean, dispersion, amplitude, wander), days, with_season=True)[1] is not None
                for _ in range(samples)
            ]
            shares.append(f"{np.mean(found):.3f}")
        activated.append([mean, dispersion, wander, amplitude, *shares])
    table.show(
        f"Share of streams with an active season ({samples} streams, seed {seed})",
        ["mean an hour", "dispersion", "wander", "amplitude", "4 days", "7 days", "14 days", "28 days"],
        activated,
    )
    hours = []
    for mean, dispersion, amplitude in (
        (3, 1, 0.6),
        (3, 2, 0.6),
        (30, 1, 0.6),
        (30, 2, 0.6),
        (3, 1, 1.0),
        (0.3, 1, 1.0),
    ):
        for days in (7, 28):
            by_season: dict[bool, list[np.ndarray]] = {False: [], True: []}
            for _ in range(samples // 5):
                counts = _counts(rng, days, mean, dispersion, amplitude, 0)
                count_model, season = _learn(counts, days, with_season=True)
                if season is None:
                    continue
                by_season[True].append(_realised_by_hour(count_model, season, mean, dispersion, amplitude))
                plain, _ = _learn(counts, days, with_season=False)
                by_season[False].append(_realised_by_hour(plain, None, mean, dispersion, amplitude))
            if by_season[True]:
                none, auto = (np.mean(by_season[each], axis=0) for each in (False, True))
                measured = [f"{value:.2f}" for value in (none.mean(), none.max(), auto.mean(), auto.max())]
                hours.append([mean, dispersion, amplitude, days, len(by_season[True]), *measured])
    table.show(
        f"Realised over promised false alarms of windows of one hour, streams with an active season (seed {seed})",
        ["mean", "dispersion", "amplitude", "days", "streams", "none: all", "worst hour", "season: all", "worst hour"],
        hours,
    )
