"""Slow rises: ratio of realised to budgeted false alarms, and the detection delay of a raised rate.

Counts of windows are negative binomial. Each calibration estimates rate and dispersion from a day of one-minute windows
and is then applied to further windows. A daily course is a sine on the rate; the calibration covers one day of it.
"""

import numpy as np

from benchmarks.statistical import table
from monitor.incidents.slow_rise_test import SlowRiseStatistic, update_slow_rise
from monitor.statistics.counts import CountModel, fit_count_model, highest_clean_rate

MINUTE = 60_000_000
DAY = 1440
EVENTS = 1000
THRESHOLD_WINDOWS = 4032.0
"""Windows between two false alarms: ten times the slow-rise quarter of 1/week, so that there are enough to count."""


def _counts(rng: np.random.Generator, mean: np.ndarray, dispersion: float) -> np.ndarray:
    if dispersion == 1:
        return rng.poisson(mean)
    return rng.negative_binomial(mean / (dispersion - 1), 1 / dispersion)


def _daily_course(windows: int, swing: float, first: int = 0) -> np.ndarray:
    return 1 + swing * np.sin(2 * np.pi * (first + np.arange(windows)) / DAY)


class SlowRiseCalibration:
    """A count model and the highest clean rate, fitted on one day."""

    def __init__(self, counts: np.ndarray) -> None:
        n = np.full(len(counts), EVENTS)
        self.count_model: CountModel = fit_count_model(0, 0, counts, n)
        self.clean_rate = highest_clean_rate(self.count_model, np.arange(len(counts)) * MINUTE, counts, n)

    def alarms(self, counts: np.ndarray, *, first_only: bool = False, cusum: bool = False) -> list[int]:
        """Return the windows that raise an alarm, or the first of them; with `cusum`, by Page's test.

        Page's test uses the same evidence. Its mean run length is also at least `THRESHOLD_WINDOWS` if its
        threshold is the logarithm of that number (Lorden 1971).
        """
        state, alarms, cusum_sum = SlowRiseStatistic(), [], 0.0
        for i, count in enumerate(counts.tolist()):
            before = state.evidence
            state, verdict = update_slow_rise(
                state,
                self.count_model,
                EVENTS,
                count,
                window_start_us=i * MINUTE,
                threshold_windows=THRESHOLD_WINDOWS,
                clean_rate=self.clean_rate,
            )
            cusum_sum = max(cusum_sum + verdict.log_statistic - before, 0.0)
            if cusum_sum >= verdict.log_threshold if cusum else verdict.fires:
                cusum_sum = 0.0
                alarms.append(i)
                if first_only:
                    break
        return alarms


def show(*, quick: bool, seed: int) -> None:
    """Print the table of slow rises."""
    n_calibrations, length = (8, 2 * DAY) if quick else (40, 14 * DAY)
    print("SLOW RISES: false alarms / budget (1 meets the budget, above 2 fails), and median delay in windows")
    print(
        f"budget: one in {THRESHOLD_WINDOWS:,.0f} one-minute windows; {n_calibrations} calibrations of a day per row; "
        f"seed {seed}"
    )
    rows: list[list[object]] = []
    meets_budget: list[bool] = []
    for mean, dispersion, swing in ((1, 1.0, 0), (5, 1.0, 0), (1, 3.0, 0), (5, 3.0, 0), (5, 1.0, 0.2), (5, 1.0, 0.5)):
        rng = np.random.default_rng([seed, mean, int(dispersion), int(swing * 10)])
        false = dict.fromkeys(("Shiryaev-Roberts", "CUSUM", "mean + 3 sigma", "plain percentile"), 0)
        delays: dict[str, dict[float, list[int]]] = {name: {1.5: [], 2.0: [], 3.0: []} for name in false}
        for _ in range(n_calibrations):
            day = _counts(rng, mean * _daily_course(DAY, swing), dispersion)
            calibrated = SlowRiseCalibration(day)
            bounds = {
                "mean + 3 sigma": day.mean() + 3 * day.std(),
                "plain percentile": np.quantile(day, 1 - 1 / THRESHOLD_WINDOWS),
            }
            counts = _counts(rng, mean * _daily_course(length, swing), dispersion)
            false["Shiryaev-Roberts"] += len(calibrated.alarms(counts))
            false["CUSUM"] += len(calibrated.alarms(counts, cusum=True))
            for name, bound in bounds.items():
                false[name] += int((counts > bound).sum())
            for raised in (1.5, 2.0, 3.0):
                first = int(rng.integers(DAY))
                raised_counts = _counts(rng, raised * mean * _daily_course(DAY, swing, first), dispersion)
                for name, cusum in (("Shiryaev-Roberts", False), ("CUSUM", True)):
                    alarms = calibrated.alarms(raised_counts, first_only=True, cusum=cusum)
                    delays[name][raised].append(alarms[0] + 1 if alarms else DAY)
                for name, bound in bounds.items():
                    above = np.flatnonzero(raised_counts > bound)
                    delays[name][raised].append(int(above[0]) + 1 if len(above) else DAY)
        for name, n_alarms in false.items():
            medians = [float(np.median(delays[name][raised])) for raised in (1.5, 2.0, 3.0)]
            realised = n_alarms * THRESHOLD_WINDOWS / (n_calibrations * length)
            rows.append([mean, dispersion, f"+-{swing:.0%}", name, realised, *medians])
            if name == "Shiryaev-Roberts":
                meets_budget.append(realised <= 2)
    rows.append(["any", "any", "any", "always fire", THRESHOLD_WINDOWS, 1.0, 1.0, 1.0])
    columns = ("mean", "dispersion", "daily", "alarm by", "false / budget", "x1.5", "x2", "x3")
    table.show("calibration on one day, then monitoring", columns, rows)
    print(f"\nShiryaev-Roberts, false / budget at most 2: met in {sum(meets_budget)} of {len(meets_budget)} rows")
