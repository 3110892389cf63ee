"""Slow rises: false alarms over promised ones, and how long a raised rate goes unnoticed.

Counts of windows are negative binomial; each calibration learns rate and dispersion from a day of one-minute windows
and is then run on. A daily course is a sine on the rate, of which the calibration has seen one day.
"""

import numpy as np

from benchmarks.promises import table
from monitor.incidents.slow_rise_test import SlowRiseStatistic, update_slow_rise
from monitor.statistics.counts import CountModel, fit_count_model, highest_clean_rate

MINUTE = 60_000_000
DAY = 1440
EVENTS = 1000
PROMISED = 4032.0
"""Windows between two false alarms: ten a week of one slow-rise detector's quarter, so that there is much to count."""


def _counts(rng: np.random.Generator, mean: np.ndarray, dispersion: float) -> np.ndarray:
    if dispersion == 1:
        return rng.poisson(mean)
    return rng.negative_binomial(mean / (dispersion - 1), 1 / dispersion)


def _course(windows: int, swing: float, first: int = 0) -> np.ndarray:
    return 1 + swing * np.sin(2 * np.pi * (first + np.arange(windows)) / DAY)


class Calibrated:
    """A law and the highest clean rate, learned from one day."""

    def __init__(self, x: np.ndarray) -> None:
        n = np.full(len(x), EVENTS)
        self.law: CountModel = fit_count_model(0, 0, x, n)
        self.clean_rate = highest_clean_rate(self.law, np.arange(len(x)) * MINUTE, x, n)

    def alarms(self, x: np.ndarray, *, first_only: bool = False, cusum: bool = False) -> list[int]:
        """Return the windows that alarm, or the first of them; `cusum` by Page's sum of the same evidence.

        Its run length, too, is at least the promised one when its limit is the logarithm of that (Lorden 1971).
        """
        state, found, page = SlowRiseStatistic(), [], 0.0
        for i, count in enumerate(x.tolist()):
            before = state.evidence
            state, verdict = update_slow_rise(
                state,
                self.law,
                EVENTS,
                count,
                window_start_us=i * MINUTE,
                threshold_windows=PROMISED,
                clean_rate=self.clean_rate,
            )
            page = max(page + verdict.log_statistic - before, 0.0)
            if page >= verdict.log_threshold if cusum else verdict.fires:
                page = 0.0
                found.append(i)
                if first_only:
                    break
        return found


def show(*, quick: bool, seed: int) -> None:
    """Print the table of slow rises."""
    times, length = (8, 2 * DAY) if quick else (40, 14 * DAY)
    print("SLOW RISES: false alarms / promised (1 is kept, above 2 is broken), and median delay in windows")
    print(f"promised one in {PROMISED:,.0f} one-minute windows; {times} calibrations of a day a row; seed {seed}")
    rows: list[list[object]] = []
    kept: list[bool] = []
    for mean, dispersion, swing in ((1, 1.0, 0), (5, 1.0, 0), (1, 3.0, 0), (5, 3.0, 0), (5, 1.0, 0.2), (5, 1.0, 0.5)):
        rng = np.random.default_rng([seed, mean, int(dispersion), int(swing * 10)])
        false = dict.fromkeys(("Shiryaev-Roberts", "CUSUM", "mean + 3 sigma", "plain percentile"), 0)
        delays: dict[str, dict[float, list[int]]] = {name: {1.5: [], 2.0: [], 3.0: []} for name in false}
        for _ in range(times):
            day = _counts(rng, mean * _course(DAY, swing), dispersion)
            calibrated = Calibrated(day)
            bounds = {
                "mean + 3 sigma": day.mean() + 3 * day.std(),
                "plain percentile": np.quantile(day, 1 - 1 / PROMISED),
            }
            x = _counts(rng, mean * _course(length, swing), dispersion)
            false["Shiryaev-Roberts"] += len(calibrated.alarms(x))
            false["CUSUM"] += len(calibrated.alarms(x, cusum=True))
            for name, bound in bounds.items():
                false[name] += int((x > bound).sum())
            for raised in (1.5, 2.0, 3.0):
                first = int(rng.integers(DAY))
                up = _counts(rng, raised * mean * _course(DAY, swing, first), dispersion)
                for name, cusum in (("Shiryaev-Roberts", False), ("CUSUM", True)):
                    alarms = calibrated.alarms(up, first_only=True, cusum=cusum)
                    delays[name][raised].append(alarms[0] + 1 if alarms else DAY)
                for name, bound in bounds.items():
                    above = np.flatnonzero(up > bound)
                    delays[name][raised].append(int(above[0]) + 1 if len(above) else DAY)
        for name, alarms_found in false.items():
            medians = [float(np.median(delays[name][raised])) for raised in (1.5, 2.0, 3.0)]
            realised = alarms_found * PROMISED / (times * length)
            rows.append([mean, dispersion, f"+-{swing:.0%}", name, realised, *medians])
            if name == "Shiryaev-Roberts":
                kept.append(realised <= 2)
    rows.append(["any", "any", "any", "always fire", PROMISED, 1.0, 1.0, 1.0])
    columns = ("mean", "dispersion", "daily", "alarm by", "false / promised", "x1.5", "x2", "x3")
    table.show("a day of learning, then on", columns, rows)
    print(f"\nShiryaev-Roberts, false / promised at most 2: kept in {sum(kept)} of {len(kept)} rows")
