"""Spikes: the realised probability of a false alarm over the promised one, read off the exact law of counts.

A draw is a calibration and a past: reference energies that set the limit, and the counts of the windows that the law
is learned from, all of one Gaussian AR(1) process. What the next window does is then known exactly.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import signal, stats

from benchmarks.promises import table
from benchmarks.promises.exact import TailTable, counts
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
    "rho", "m", "W", "limit by", "mean", "share <= 2", "5%", "median", "95%", "of attainable",
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
    """One realised rate of false alarms, over the promised one and over the attainable one."""

    m: int
    past: int
    name: str
    of_promised: float
    of_attainable: float


def _attainable(tails: TailTable, rate: float) -> float:
    """Return the largest probability within the budget that any integer limit has under the true law."""
    count = 0
    while tails.beyond(count, rate) > ALPHA:
        count += 1
    return tails.beyond(count, rate)


def _draws(percentile: float, rho: float, *, times: int, seed: int) -> Iterator[Draw]:
    a = exceedance(percentile)
    largest = 60 + int(40 * EVENTS * a)
    tails = TailTable(EVENTS, a, rho, largest, points=25)
    rng = np.random.default_rng([seed, int(rho * 10), int(percentile * 10)])
    events = np.full(PAST[-1], EVENTS)
    for _ in range(times):
        longest = np.sort(_path(rng, CALIBRATIONS[-1], rho).reshape(-1, CALIBRATIONS[0]), axis=None)
        past = _path(rng, PAST[-1] * EVENTS, rho).reshape(PAST[-1], EVENTS)
        for m in CALIBRATIONS:
            reference = longest if m == len(longest) else np.sort(_path(rng, m, rho))
            limit = estimate_reference_threshold(reference, percentile)
            rate = float(stats.norm.sf(limit.value))
            attainable = _attainable(tails, rate)
            above, n = count_reference_above(limit, reference)
            x = (past > np.float32(limit.value)).sum(axis=1)
            for windows in PAST:
                law = fit_count_model(above, n, x[:windows], events[:windows])
                found = {"learned law": spike_count_threshold(law, EVENTS, ALPHA).count}
                if windows == 1000:
                    seen = x[:windows]
                    found["nominal binomial"] = int(stats.binom.isf(ALPHA, EVENTS, a))
                    found["mean + 3 sigma"] = int(seen.mean() + 3 * seen.std())
                    found["plain percentile"] = int(np.quantile(seen, 1 - ALPHA))
                for name, count in found.items():
                    realised = tails.beyond(count, rate)
                    yield Draw(
                        m=m,
                        past=windows,
                        name=name,
                        of_promised=realised / ALPHA,
                        of_attainable=realised / attainable,
                    )


def _promise(percentile: float, *, times: int, seed: int) -> None:
    rows: list[list[object]] = []
    known: list[bool] = []
    sized: list[bool] = []
    for rho in RHOS:
        cells: dict[tuple[int, int, str], list[Draw]] = {}
        for draw in _draws(percentile, rho, times=times, seed=seed):
            cells.setdefault((draw.m, draw.past, draw.name), []).append(draw)
        for (m, past, name), found in cells.items():
            of_promised = np.array([draw.of_promised for draw in found])
            of_attainable = float(np.median([draw.of_attainable for draw in found]))
            low, middle, high = np.quantile(of_promised, (0.05, 0.5, 0.95)).tolist()
            mean, within = float(of_promised.mean()), float((of_promised <= 2).mean())
            rows.append([rho, m, past, name, mean, f"{within:.0%}", low, middle, high, of_attainable])
            if name == "learned law" and past >= 1000:
                known.append(mean <= 2 and within >= 0.8)
            if name == "learned law" and past >= 3000:
                sized.append((0.25 if rho == 0.9 else 0.5) <= of_attainable <= 2)
    rows.append(["any", "any", "any", "always fire", 1 / ALPHA, "0%", 1 / ALPHA, 1 / ALPHA, 1 / ALPHA, "-"])
    mean = EVENTS * exceedance(percentile)
    table.show(
        f"p{percentile:g}, {EVENTS:,} events in 10 s: {mean:g} outliers on average; {times} draws a row",
        COLUMNS,
        rows,
    )
    print(
        f"\nlearned law, W >= 1000, mean <= 2 and 80% of the draws <= 2: kept in {sum(known)} of {len(known)} rows; "
        f"W >= 3000, median of attainable in [1/2, 2], at rho .9 in [1/4, 2]: kept in {sum(sized)} of {len(sized)}"
    )


def _power(percentile: float) -> None:
    """Print the smallest share of added outliers that fires within one window with 95% probability."""
    a = exceedance(percentile)
    rows: list[list[object]] = []
    for rho in RHOS:
        largest = 60 + int(40 * EVENTS * a)
        clean = counts(EVENTS, a, rho, largest)
        mean = float((np.arange(largest + 1) * clean).sum())
        variance = float((np.arange(largest + 1) ** 2 * clean).sum()) - mean**2
        law = CountModel(
            rate=a,
            calibration_n=1000 * EVENTS,
            dispersion=max(1, variance / mean),
            windows=1000,
            state="learned",
        )
        for name, limit in (
            ("learned law", spike_count_threshold(law, EVENTS, ALPHA).count),
            ("nominal binomial", int(stats.binom.isf(ALPHA, EVENTS, a))),
            ("mean + 3 sigma", int(mean + 3 * np.sqrt(variance))),
            ("always fire", -1),
        ):
            rows.append([rho, name, limit, f"{_smallest_share(clean, limit):.2%}"])
    table.show(
        f"p{percentile:g}: the smallest share of outliers found within one window with 95%",
        ("rho", "limit by", "limit", "share"),
        rows,
    )


def _smallest_share(clean: np.ndarray, limit: int) -> float:
    if limit < 0:
        return 0.0
    for added in np.arange(0, 0.2, 0.0005):
        extra = stats.binom(EVENTS, added).pmf(np.arange(limit + 1))
        stays = sum(clean[k] * extra[: limit + 1 - k].sum() for k in range(limit + 1))
        if stays <= 0.05:
            return float(added)
    return float("nan")


def show(*, quick: bool, seed: int) -> None:
    """Print the tables of spikes."""
    print("SPIKES: realised / promised probability of a false alarm of one window; 1 is kept, above 2 is broken")
    print(
        f"promised {ALPHA:.3g} a window (1 a week of 10 s windows); seed {seed}; m reference energies, W past windows"
    )
    for percentile in (99.9,) if quick else (99.9, 99.0):
        _promise(percentile, times=25 if quick else 200, seed=seed)
        _power(percentile)
