"""Thresholds under contamination: ratio of clean to nominal exceedance, on parts of windows, with the production code.

Each recomputation has a look-back of 100 windows of 500 events, drawn from a pool of windows with clean energies that
have the distribution of the reference at another location and scale. A run of 500 recomputations covers all locations
and scales once. The outliers of kind "just above" follow the threshold in force: an adaptive attack.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import stats

from benchmarks.statistical import table
from monitor.statistics.part import Part, Scale, summarise, summarise_windows
from monitor.statistics.sketch import EnergySketch
from monitor.thresholds.choose import choose_threshold, disagrees_with_reference, estimate_first_threshold
from monitor.thresholds.look_back import LookBack
from monitor.thresholds.percentile import exceedance

PERCENTILES = (99.0, 99.5, 99.9)
FRACTIONS = (0.0, 0.001, 0.005, 0.02, 0.05)
KINDS = ("gross", "just above", "bursts")
WINDOWS, EVENTS, N_REFERENCE = 100, 500, 20_000
POOL_WINDOWS = 200
"""The number of windows drawn at each location and scale; a look-back selects half of them."""

N_LOCATIONS = 20
BURST_FRACTION = 0.5
"""The fraction of outliers in a window with a burst."""

METHODS = ("anchored", "plain percentile", "mean + 3 sigma")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyDistribution:
    """Distribution of clean energies: a sampler, and the exact exceedance of a threshold."""

    name: str
    draw: Callable[[np.random.Generator, int], np.ndarray]
    tail: Callable[[float], float]


def _gamma(shape: float) -> EnergyDistribution:
    return EnergyDistribution(
        name=f"gamma {shape:g}",
        draw=lambda rng, n: rng.standard_gamma(shape, n),
        tail=lambda energy: float(stats.gamma.sf(energy, shape)),
    )


def _two_bodies(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.standard_gamma(4, n) + np.where(rng.random(n) < 0.2, 10.0, 0.0)


DISTRIBUTIONS = (
    _gamma(8),
    EnergyDistribution(
        name="two bodies",
        draw=_two_bodies,
        tail=lambda e: float(0.8 * stats.gamma.sf(e, 4) + 0.2 * stats.gamma.sf(e - 10, 4)),
    ),
    _gamma(1),
    _gamma(30),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WindowPool:
    """Windows of one location and scale: their parts, and the sums for `mean + 3 sigma`."""

    location: float
    width: float
    parts: list[Part]
    sums: np.ndarray
    squares: np.ndarray

    def sketch(self, selected: np.ndarray, scale: Scale) -> EnergySketch:
        """Return the sketch of selected windows, as a look-back computes it."""
        return EnergySketch.from_parts([self.parts[i] for i in selected], scale)

    def mean_and_three_sigma(self, selected: np.ndarray) -> float:
        """Return the mean + 3 standard deviations of the energies of selected windows."""
        n = len(selected) * EVENTS
        mean = float(self.sums[selected].sum()) / n
        return mean + 3 * float(np.sqrt(self.squares[selected].sum() / n - mean**2))


def _contaminate(rng: np.random.Generator, kind: str, fraction: float, energies: np.ndarray, threshold: float) -> None:
    """Replace a fraction of the energies, (windows, events), by outliers."""
    spread = float(np.subtract(*np.quantile(energies, (0.75, 0.25))))
    middle, windows = float(np.median(energies)), len(energies)
    n = round(fraction * energies.size)
    if kind == "bursts":
        burst_windows = rng.permutation(windows)[: max(1, round(fraction * windows / BURST_FRACTION))]
        at = (burst_windows[:, None] * EVENTS + np.arange(round(BURST_FRACTION * EVENTS))).ravel()[:n]
    else:
        at = rng.permutation(energies.size)[:n]
    outliers = threshold + spread * rng.uniform(0, 0.5, n) if kind == "just above" else None
    energies.flat[at] = middle + spread * rng.uniform(10, 200, len(at)) if outliers is None else outliers


def _locations_and_scales(iqr: float, start: float) -> Iterator[tuple[float, float]]:
    """Yield location and scale of the clean energies: the scale from 0.2 to 10, the location two IQR to each side."""
    for i in range(N_LOCATIONS):
        phase = 2 * np.pi * (start + i / N_LOCATIONS)
        yield 2 * iqr * np.sin(3 * phase), float(np.sqrt(2) * np.exp(np.log(50) / 2 * np.sin(phase)))


def _draw_pool(
    rng: np.random.Generator,
    distribution: EnergyDistribution,
    location_scale: tuple[float, float],
    kind: str,
    fraction: float,
    threshold: float,
    scale: Scale,
) -> WindowPool:
    location, width = location_scale
    energies = location + width * distribution.draw(rng, POOL_WINDOWS * EVENTS).reshape(POOL_WINDOWS, EVENTS)
    _contaminate(rng, kind, fraction, energies, location + width * threshold)
    energies32 = energies.astype(np.float32).ravel()
    windows = np.repeat(np.arange(POOL_WINDOWS), EVENTS)
    pool = summarise_windows(energies32, energies32 > threshold, windows, POOL_WINDOWS, scale)
    return WindowPool(
        location=location,
        width=width,
        parts=[pool.window(index) for index in range(POOL_WINDOWS)],
        sums=energies.sum(axis=1),
        squares=(energies**2).sum(axis=1),
    )


def run(
    distribution: EnergyDistribution,
    seed: int,
    kind: str,
    fraction: float,
    percentiles: tuple[float, ...],
    recomputations: int,
) -> dict[tuple[float, str], list[float]]:
    """Return the ratio of clean to nominal exceedance at each recomputation, by percentile and method."""
    rng = np.random.default_rng(
        [seed, DISTRIBUTIONS.index(distribution), KINDS.index(kind), round(fraction * 1000), len(percentiles)]
    )
    reference = np.sort(distribution.draw(rng, N_REFERENCE).astype(np.float32))
    scale = Scale.from_energies(reference)
    # The threshold that the attack aims at: up to noise, the one in force is the mapped percentile of the reference.
    attack_threshold = float(np.quantile(reference, percentiles[0] / 100))
    in_force = {percentile: estimate_first_threshold(reference, percentile) for percentile in percentiles}
    ratios: dict[tuple[float, str], list[float]] = {(p, method): [] for p in percentiles for method in METHODS}
    for location_scale in _locations_and_scales(scale.iqr, rng.random()):
        pool = _draw_pool(rng, distribution, location_scale, kind, fraction, attack_threshold, scale)
        for _ in range(-(-recomputations // N_LOCATIONS)):
            selected = rng.permutation(POOL_WINDOWS)[:WINDOWS]
            sketch = pool.sketch(selected, scale)
            for percentile in percentiles:
                in_force[percentile] = choose_threshold(in_force[percentile], sketch, reference, percentile)
                thresholds = {
                    "anchored": in_force[percentile].value,
                    "plain percentile": sketch.quantile(percentile / 100),
                    "mean + 3 sigma": pool.mean_and_three_sigma(selected),
                }
                for name, threshold in thresholds.items():
                    clean = distribution.tail((threshold - pool.location) / pool.width)
                    ratios[percentile, name].append(clean / exceedance(percentile))
        if kind == "just above":
            threshold = in_force[percentiles[0]].value
            attack_threshold = (threshold - pool.location) / pool.width
    return ratios


def _cell(cell: tuple[int, int, str, float, tuple[float, ...]], recomputations: int) -> dict[object, list[float]]:
    number, seed, kind, fraction, percentiles = cell
    ratios = run(DISTRIBUTIONS[number], seed, kind, fraction, percentiles, recomputations)
    return {(p, fraction, kind if fraction else "none", method): values for (p, method), values in ratios.items()}


def _cells(distributions: int, seeds: list[int]) -> Iterator[tuple[int, int, str, float, tuple[float, ...]]]:
    """Yield the runs, with the distributions in turn; only the kind "just above" depends on the percentile."""
    for fraction in FRACTIONS:
        for kind in KINDS if fraction else KINDS[:1]:
            for percentiles in [(p,) for p in PERCENTILES] if kind == "just above" else [PERCENTILES]:
                for i, seed in enumerate(seeds):
                    yield i % distributions, seed, kind, fraction, percentiles


def show(*, quick: bool, seed: int) -> None:
    """Print the tables of thresholds, within and outside of the supported conditions."""
    distributions, n_seeds, recomputations = (2, 2, 40) if quick else (len(DISTRIBUTIONS), 12, 500)
    seeds = [seed + i for i in range(n_seeds)]
    print("THRESHOLDS: clean exceedance / nominal; 1 is ideal, 0 detects nothing; a method holds if all are in 1/3..3")
    print("the clean location moves by two IQR to each side, the clean scale from 0.2 to 10")
    print(f"seeds {seeds[0]}..{seeds[-1]}, {recomputations} recomputations each; distributions in turn: ", end="")
    print(", ".join(distribution.name for distribution in DISTRIBUTIONS[:distributions]))
    print(f"look-back {WINDOWS * EVENTS:,} events in {WINDOWS} windows, {N_REFERENCE:,} reference energies")
    pooled: dict[object, list[float]] = {}
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        work = partial(_cell, recomputations=recomputations)
        for ratios in pool.imap(work, _cells(distributions, seeds), chunksize=4):
            for key, values in ratios.items():
                pooled.setdefault(key, []).extend(values)
    for percentile in PERCENTILES:
        rows: list[list[object]] = []
        for (p, fraction, kind, method), values in pooled.items():  # type: ignore[misc]
            if p == percentile:
                low, middle, high = np.quantile(values, (0, 0.5, 1)).tolist()
                within = float(np.mean([1 / 3 <= value <= 3 for value in values]))
                rows.append([f"{fraction:.1%}", kind, method, low, middle, high, f"{within:.2%}"])
        always_fire = 1 / exceedance(percentile)
        rows.append(["any", "any", "always fire", always_fire, always_fire, always_fire, "0.0%"])
        table.show(f"p{percentile:g}", ("outliers", "kind", "threshold", "least", "median", "most", "in 1/3..3"), rows)
    _outside_conditions(seeds[:2] if quick else seeds)


def _outside_conditions(seeds: list[int]) -> None:
    """Print ratios outside of the supported conditions, and the windows until percentile and reference disagree."""
    rows: list[list[object]] = []
    for name, change, tail, percentile in _CHANGES:
        ratios, disagrees_after = [], []
        for seed in seeds:
            ratio, after = _windows_until_disagreement(
                np.random.default_rng([seed, len(name)]), change, tail, percentile
            )
            ratios.append(ratio)
            disagrees_after.append(after)
        within = [after for after in disagrees_after if after is not None]
        rows.append(
            [
                name,
                f"p{percentile:g}",
                *np.quantile(ratios, (0, 0.5, 1)).tolist(),
                f"{len(within)} of {len(disagrees_after)}",
                float(np.median(within)) if within else "-",
            ]
        )
    table.show(
        f"outside the conditions: other energies than a gamma 8 reference's, for a look-back of {WINDOWS} windows\n"
        "(disagree: look-back and reference disagree; reported as suspect, and as an incident if it lasts)",
        ("events", "threshold", "least", "median", "most", "disagree", "after windows"),
        rows,
    )


def _draw_heavier(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return energies with the body of gamma 8 and the tail of Student t: the mean of chi squares with 10 degrees."""
    return np.asarray(rng.standard_gamma(8, n) * 10 / rng.chisquare(10, n))


def _tail_heavier(energy: float) -> float:
    return float(stats.f.sf(energy / 8, 16, 10))


def _with_overlap(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return energies with 5% outliers that begin inside the clean body."""
    energies = rng.standard_gamma(8, n)
    at = rng.random(n) < 0.05
    energies[at] = rng.uniform(10, 25, int(at.sum()))
    return energies


def _with_half(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return energies with 45% far outliers: more than the reference can distinguish from a change of all events."""
    return np.where(rng.random(n) < 0.45, 200.0, rng.standard_gamma(8, n))


def _gamma_tail(energy: float) -> float:
    return float(stats.gamma.sf(energy, 8))


_CHANGES = tuple(
    (name, change, tail, percentile)
    for name, change, tail in (
        ("clean tail of Student t10", _draw_heavier, _tail_heavier),
        ("5% outliers that overlap the body", _with_overlap, _gamma_tail),
        ("45% far outliers", _with_half, _gamma_tail),
    )
    for percentile in (99.0, 99.9)
)


def _windows_until_disagreement(
    rng: np.random.Generator,
    change: Callable[[np.random.Generator, int], np.ndarray],
    tail: Callable[[float], float],
    percentile: float,
) -> tuple[float, int | None]:
    """Return the ratio of clean to nominal exceedance after the change, and the window of the first disagreement."""
    reference = np.sort(rng.standard_gamma(8, N_REFERENCE).astype(np.float32))
    scale = Scale.from_energies(reference)
    look_back = LookBack(scale)
    threshold = estimate_first_threshold(reference, percentile)
    disagrees_at: int | None = None
    for window in range(2 * WINDOWS):
        energies = (rng.standard_gamma(8, EVENTS) if window < WINDOWS else change(rng, EVENTS)).astype(np.float32)
        look_back.add(window, summarise(energies, energies > threshold.value, scale))
        if window < WINDOWS:
            continue
        look_back.evict(window - WINDOWS)
        threshold = choose_threshold(threshold, look_back.sketch(), reference, percentile)
        if disagrees_at is None and disagrees_with_reference(threshold.method, threshold.details):
            disagrees_at = window - WINDOWS + 1
    return tail(threshold.value) / exceedance(percentile), disagrees_at
