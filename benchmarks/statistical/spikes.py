"""Spikes: ratio of realised to budgeted false-alarm probability, from the exact distribution of counts.

A draw consists of reference energies that determine the threshold, and counts of past windows for the count model, all
from one Gaussian AR(1) process. The false-alarm probability of the next window is then known exactly.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import signal, stats

from benchmarks.statistical import table
from benchmarks.statistical.exact_counts import TailTable, counts
from monitor.incidents.spike import false_alarm_probability, spike_count_threshold
from monitor.statistics.counts import CountModel, fit_count_model
from monitor.thresholds.choose import count_reference_above
from monitor.thresholds.percentile import estimate_reference_threshold, exceedance

SECOND = 1_000_000
EVENTS = 1000
ALPHA = false_alarm_probability(1, 10 * SECOND, share=1)
PAST = (100, 300, 1000, 3000)
CALIBRATIONS = (10**3, 10**4, 10**5, 10**6)
RHOS = (0.0, 0.5, 0.9)
COLUMNS = (
    "rho", "m", "W", "threshold by", "mean", "share <= 2", "5%", "median", "95%", "of attainable",
)  # fmt: skip


def _path(rng: np.random.Generator, n: int, rho: float) -> np.ndarray:
    """Return n values of a stationary Gaussian AR(1) process of variance 1."""
    noise = rng.standard_normal(n, dtype=np.float32)
    if rho == 0:
        return noise
    noise[1:] *= np.float32(np.sqrt(1 - rho * rho))
    return np.asarray(signal.lfilter(np.float32([1]), np.float32([1, -rho]), noise), np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """One realised false-alarm probability, relative to the budget and to the attainable probability."""

    m: int
    past: int
    name: str
    of_budget: float
    of_attainable: float


def _attainable(tails: TailTable, rate: float) -> float:
    """Return the largest probability within the budget of any integer threshold under the true distribution."""
    count = 0
    while tails.beyond(count, rate) > ALPHA:
        count += 1
    return tails.beyond(count, rate)


def _draws(percentile: float, rho: float, *, n_draws: int, seed: int) -> Iterator[Draw]:
    nominal = exceedance(percentile)
    largest = 60 + int(40 * EVENTS * nominal)
    tails = TailTable(EVENTS, nominal, rho, largest, points=25)
    rng = np.random.default_rng([seed, int(rho * 10), int(percentile * 10)])
    events = np.full(PAST[-1], EVENTS)
    for _ in range(n_draws):
        largest_reference = np.sort(_path(rng, CALIBRATIONS[-1], rho).reshape(-1, CALIBRATIONS[0]), axis=None)
        past = _path(rng, PAST[-1] * EVENTS, rho).reshape(PAST[-1], EVENTS)
        for m in CALIBRATIONS:
            reference = largest_reference if m == len(largest_reference) else np.sort(_path(rng, m, rho))
            threshold = estimate_reference_threshold(reference, percentile)
            rate = float(stats.norm.sf(threshold.value))
            attainable = _attainable(tails, rate)
            above, n = count_reference_above(threshold, reference)
            outlier_counts = (past > np.float32(threshold.value)).sum(axis=1)
            for windows in PAST:
                count_model = fit_count_model(above, n, outlier_counts[:windows], events[:windows])
                found = {"count model": spike_count_threshold(count_model, EVENTS, ALPHA).count}
                if windows == 1000:
                    past_counts = outlier_counts[:windows]
                    found["nominal binomial"] = int(stats.binom.isf(ALPHA, EVENTS, nominal))
                    found["mean + 3 sigma"] = int(past_counts.mean() + 3 * past_counts.std())
                    found["plain percentile"] = int(np.quantile(past_counts, 1 - ALPHA))
                for name, count in found.items():
                    realised = tails.beyond(count, rate)
                    yield Draw(
                        m=m,
                        past=windows,
                        name=name,
                        of_budget=realised / ALPHA,
                        of_attainable=realised / attainable,
                    )


def _false_alarms(percentile: float, *, n_draws: int, seed: int) -> None:
    rows: list[list[object]] = []
    meets_budget: list[bool] = []
    near_attainable: list[bool] = []
    for rho in RHOS:
        cells: dict[tuple[int, int, str], list[Draw]] = {}
        for draw in _draws(percentile, rho, n_draws=n_draws, seed=seed):
            cells.setdefault((draw.m, draw.past, draw.name), []).append(draw)
        for (m, past, name), found in cells.items():
            of_budget = np.array([draw.of_budget for draw in found])
            of_attainable = float(np.median([draw.of_attainable for draw in found]))
            p05, median, p95 = np.quantile(of_budget, (0.05, 0.5, 0.95)).tolist()
            mean, within = float(of_budget.mean()), float((of_budget <= 2).mean())
            rows.append([rho, m, past, name, mean, f"{within:.0%}", p05, median, p95, of_attainable])
            if name == "count model" and past >= 1000:
                meets_budget.append(mean <= 2 and within >= 0.8)
            if name == "count model" and past >= 3000:
                near_attainable.append((0.25 if rho == 0.9 else 0.5) <= of_attainable <= 2)
    rows.append(["any", "any", "any", "always fire", 1 / ALPHA, "0%", 1 / ALPHA, 1 / ALPHA, 1 / ALPHA, "-"])
    mean = EVENTS * exceedance(percentile)
    table.show(
        f"p{percentile:g}, {EVENTS:,} events in 10 s: {mean:g} outliers on average; {n_draws} draws per row",
        COLUMNS,
        rows,
    )
    print(
        f"\ncount model, W >= 1000, mean <= 2 and 80% of the draws <= 2: met in {sum(meets_budget)} of "
        f"{len(meets_budget)} rows; "
        "W >= 3000, median of attainable in [1/2, 2], at rho .9 in [1/4, 2]: "
        f"met in {sum(near_attainable)} of {len(near_attainable)}"
    )


def _power(percentile: float) -> None:
    """Print the smallest fraction of added outliers that is detected within one window with 95% probability."""
    nominal = exceedance(percentile)
    rows: list[list[object]] = []
    for rho in RHOS:
        largest = 60 + int(40 * EVENTS * nominal)
        clean = counts(EVENTS, nominal, rho, largest)
        mean = float((np.arange(largest + 1) * clean).sum())
        variance = float((np.arange(largest + 1) ** 2 * clean).sum()) - mean**2
        count_model = CountModel(
            rate=nominal,
            calibration_n=1000 * EVENTS,
            dispersion=max(1, variance / mean),
            windows=1000,
            state="learned",
        )
        for name, threshold in (
            ("count model", spike_count_threshold(count_model, EVENTS, ALPHA).count),
            ("nominal binomial", int(stats.binom.isf(ALPHA, EVENTS, nominal))),
            ("mean + 3 sigma", int(mean + 3 * np.sqrt(variance))),
            ("always fire", -1),
        ):
            rows.append([rho, name, threshold, f"{_smallest_share(clean, threshold):.2%}"])
    table.show(
        f"p{percentile:g}: smallest fraction of outliers detected within one window with 95%",
        ("rho", "threshold by", "threshold", "fraction"),
        rows,
    )


def _smallest_share(clean: np.ndarray, threshold: int) -> float:
    if threshold < 0:
        return 0.0
    for added in np.arange(0, 0.2, 0.0005):
        added_pmf = stats.binom(EVENTS, added).pmf(np.arange(threshold + 1))
        missed = sum(clean[k] * added_pmf[: threshold + 1 - k].sum() for k in range(threshold + 1))
        if missed <= 0.05:
            return float(added)
    return float("nan")


def show(*, quick: bool, seed: int) -> None:
    """Print the tables of spikes."""
    print("SPIKES: realised / budgeted false-alarm probability of one window; 1 meets the budget, above 2 fails")
    print(
        f"budget {ALPHA:.3g} per window (1 a week of 10 s windows); seed {seed}; m reference energies, W past windows"
    )
    for percentile in (99.9,) if quick else (99.9, 99.0):
        _false_alarms(percentile, n_draws=25 if quick else 200, seed=seed)
        _power(percentile)
