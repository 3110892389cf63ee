"""Limits under contamination: the clean exceedance over the nominal one, on parts of windows, by the code that runs.

Each recomputation has a look-back of 100 windows of 500 events, drawn out of a store of windows whose clean energies
are the reference's at another location and scale; a run of 500 recomputations passes all locations and scales once.
The outliers just above the limit are put there by somebody who knows the limit in force at each of them.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import stats

from benchmarks.promises import table
from monitor.statistics.part import Part, Scale, summarise, summarise_windows
from monitor.statistics.sketch import EnergySketch
from monitor.thresholds.choose import choose_threshold, estimate_first_threshold, is_contested
from monitor.thresholds.look_back import LookBack
from monitor.thresholds.percentile import exceedance

PERCENTILES = (99.0, 99.5, 99.9)
SHARES = (0.0, 0.001, 0.005, 0.02, 0.05)
KINDS = ("gross", "just above", "bursts")
WINDOWS, EVENTS, REFERENCE = 100, 500, 20_000
STORED = 200
"""Windows drawn at each location and scale; a look-back is a choice of half of them."""

PLACES = 20
BURST = 0.5
"""Share of a burst's window that are outliers."""

METHODS = ("anchored", "plain percentile", "mean + 3 sigma")


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """A law of clean energies: how to draw them, and the exact exceedance of a limit."""

    name: str
    draw: Callable[[np.random.Generator, int], np.ndarray]
    tail: Callable[[float], float]


def _gamma(shape: float) -> Law:
    return Law(
        name=f"gamma {shape:g}",
        draw=lambda rng, n: rng.standard_gamma(shape, n),
        tail=lambda energy: float(stats.gamma.sf(energy, shape)),
    )


def _two_bodies(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.standard_gamma(4, n) + np.where(rng.random(n) < 0.2, 10.0, 0.0)


LAWS = (
    _gamma(8),
    Law(
        name="two bodies",
        draw=_two_bodies,
        tail=lambda e: float(0.8 * stats.gamma.sf(e, 4) + 0.2 * stats.gamma.sf(e - 10, 4)),
    ),
    _gamma(1),
    _gamma(30),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Store:
    """Windows of one location and scale: their parts, and sums for the limits that need no parts."""

    location: float
    width: float
    parts: list[Part]
    sums: np.ndarray
    squares: np.ndarray

    def sketch(self, chosen: np.ndarray, scale: Scale) -> EnergySketch:
        """Return the sketch of some of the windows, as a look-back gives it."""
        return EnergySketch.from_parts([self.parts[i] for i in chosen], scale)

    def mean_and_three_sigma(self, chosen: np.ndarray) -> float:
        """Return mean + 3 standard deviations of their energies."""
        n = len(chosen) * EVENTS
        mean = float(self.sums[chosen].sum()) / n
        return mean + 3 * float(np.sqrt(self.squares[chosen].sum() / n - mean**2))


def _contaminate(rng: np.random.Generator, kind: str, share: float, energies: np.ndarray, limit: float) -> None:
    """Replace a share of the energies (windows x events) by outliers."""
    spread = float(np.subtract(*np.quantile(energies, (0.75, 0.25))))
    middle, windows = float(np.median(energies)), len(energies)
    n = round(share * energies.size)
    if kind == "bursts":
        hit = rng.permutation(windows)[: max(1, round(share * windows / BURST))]
        at = (hit[:, None] * EVENTS + np.arange(round(BURST * EVENTS))).ravel()[:n]
    else:
        at = rng.permutation(energies.size)[:n]
    outliers = limit + spread * rng.uniform(0, 0.5, n) if kind == "just above" else None
    energies.flat[at] = middle + spread * rng.uniform(10, 200, len(at)) if outliers is None else outliers


def _places(iqr: float, begin: float) -> Iterator[tuple[float, float]]:
    """Yield location and scale of the clean energies: the scale from 0.2 to 10, the location two IQR to each side."""
    for i in range(PLACES):
        phase = 2 * np.pi * (begin + i / PLACES)
        yield 2 * iqr * np.sin(3 * phase), float(np.sqrt(2) * np.exp(np.log(50) / 2 * np.sin(phase)))


def _store(
    rng: np.random.Generator, law: Law, place: tuple[float, float], kind: str, share: float, limit: float, scale: Scale
) -> Store:
    location, width = place
    energies = location + width * law.draw(rng, STORED * EVENTS).reshape(STORED, EVENTS)
    _contaminate(rng, kind, share, energies, location + width * limit)
    single = energies.astype(np.float32).ravel()
    _, parts = summarise_windows(single, single > limit, np.repeat(np.arange(STORED), EVENTS), scale)
    return Store(
        location=location,
        width=width,
        parts=parts,
        sums=energies.sum(axis=1),
        squares=(energies**2).sum(axis=1),
    )


def run(
    law: Law, seed: int, kind: str, share: float, percentiles: tuple[float, ...], recomputations: int
) -> dict[tuple[float, str], list[float]]:
    """Return by percentile and method the clean exceedance over the nominal one at each recomputation."""
    rng = np.random.default_rng([seed, LAWS.index(law), KINDS.index(kind), round(share * 1000), len(percentiles)])
    reference = np.sort(law.draw(rng, REFERENCE).astype(np.float32))
    scale = Scale.from_energies(reference)
    # Where the attacker aims: the limit in force is the reference's percentile, mapped, but for its own noise.
    aim = float(np.quantile(reference, percentiles[0] / 100))
    in_force = {percentile: estimate_first_threshold(reference, percentile) for percentile in percentiles}
    found: dict[tuple[float, str], list[float]] = {(p, method): [] for p in percentiles for method in METHODS}
    for place in _places(scale.iqr, rng.random()):
        store = _store(rng, law, place, kind, share, aim, scale)
        for _ in range(-(-recomputations // PLACES)):
            chosen = rng.permutation(STORED)[:WINDOWS]
            sketch = store.sketch(chosen, scale)
            for percentile in percentiles:
                in_force[percentile] = choose_threshold(in_force[percentile], sketch, reference, percentile)
                limits = {
                    "anchored": in_force[percentile].value,
                    "plain percentile": sketch.quantile(percentile / 100),
                    "mean + 3 sigma": store.mean_and_three_sigma(chosen),
                }
                for name, limit in limits.items():
                    clean = law.tail((limit - store.location) / store.width)
                    found[percentile, name].append(clean / exceedance(percentile))
        if kind == "just above":
            limit = in_force[percentiles[0]].value
            aim = (limit - store.location) / store.width
    return found


def _cell(cell: tuple[int, int, str, float, tuple[float, ...]], recomputations: int) -> dict[object, list[float]]:
    number, seed, kind, share, percentiles = cell
    found = run(LAWS[number], seed, kind, share, percentiles, recomputations)
    return {(p, share, kind if share else "none", method): values for (p, method), values in found.items()}


def _cells(laws: int, seeds: list[int]) -> Iterator[tuple[int, int, str, float, tuple[float, ...]]]:
    """Yield what is run, the laws in turn; only the attack just above the limit depends on the percentile."""
    for share in SHARES:
        for kind in KINDS if share else KINDS[:1]:
            for percentiles in [(p,) for p in PERCENTILES] if kind == "just above" else [PERCENTILES]:
                for i, seed in enumerate(seeds):
                    yield i % laws, seed, kind, share, percentiles


def show(*, quick: bool, seed: int) -> None:
    """Print the table of limits, and what happens outside its conditions."""
    laws, times, recomputations = (2, 2, 40) if quick else (len(LAWS), 12, 500)
    seeds = [seed + i for i in range(times)]
    print("LIMITS: clean exceedance / nominal; 1 is right, 0 is blind; a method holds where all of it is in 1/3..3")
    print("the clean location moves by two IQR to each side, the clean scale from 0.2 to 10")
    print(f"seeds {seeds[0]}..{seeds[-1]}, {recomputations} recomputations each; laws in turn: ", end="")
    print(", ".join(law.name for law in LAWS[:laws]))
    print(f"look-back {WINDOWS * EVENTS:,} events in {WINDOWS} windows, {REFERENCE:,} reference energies")
    pooled: dict[object, list[float]] = {}
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        work = partial(_cell, recomputations=recomputations)
        for found in pool.imap(work, _cells(laws, seeds), chunksize=4):
            for key, values in found.items():
                pooled.setdefault(key, []).extend(values)
    for percentile in PERCENTILES:
        rows: list[list[object]] = []
        for (p, share, kind, method), values in pooled.items():  # type: ignore[misc]
            if p == percentile:
                low, middle, high = np.quantile(values, (0, 0.5, 1)).tolist()
                holds = float(np.mean([1 / 3 <= value <= 3 for value in values]))
                rows.append([f"{share:.1%}", kind, method, low, middle, high, f"{holds:.2%}"])
        always = 1 / exceedance(percentile)
        rows.append(["any", "any", "always fire", always, always, always, "0.0%"])
        table.show(f"p{percentile:g}", ("outliers", "kind", "limit", "least", "median", "most", "in 1/3..3"), rows)
    _outside(seeds[:2] if quick else seeds)


def _outside(seeds: list[int]) -> None:
    """Print what no limit can promise, and after how many windows the calibration says so."""
    rows: list[list[object]] = []
    for name, change, tail, percentile in _CHANGES:
        ratios, said = [], []
        for seed in seeds:
            ratio, after = _until_said(np.random.default_rng([seed, len(name)]), change, tail, percentile)
            ratios.append(ratio)
            said.append(after)
        within = [after for after in said if after is not None]
        rows.append(
            [
                name,
                f"p{percentile:g}",
                *np.quantile(ratios, (0, 0.5, 1)).tolist(),
                f"{len(within)} of {len(said)}",
                float(np.median(within)) if within else "-",
            ]
        )
    table.show(
        f"outside the conditions: other energies than a gamma 8 reference's, for a look-back of {WINDOWS} windows\n"
        "(contested: look-back and reference disagree, which is told as suspect, and lasting as an incident)",
        ("what comes", "limit", "least", "median", "most", "contested", "after windows"),
        rows,
    )


def _draw_heavier(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return energies with the body of gamma 8 and the tail of Student t: the mean of chi squares with 10 degrees."""
    return np.asarray(rng.standard_gamma(8, n) * 10 / rng.chisquare(10, n))


def _tail_heavier(energy: float) -> float:
    return float(stats.f.sf(energy / 8, 16, 10))


def _with_overlap(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return 5% outliers that begin inside the clean body."""
    energies = rng.standard_gamma(8, n)
    at = rng.random(n) < 0.05
    energies[at] = rng.uniform(10, 25, int(at.sum()))
    return energies


def _with_half(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return 45% far outliers: more than the reference can tell from a change of all events."""
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


def _until_said(
    rng: np.random.Generator,
    change: Callable[[np.random.Generator, int], np.ndarray],
    tail: Callable[[float], float],
    percentile: float,
) -> tuple[float, int | None]:
    """Return the clean exceedance over nominal after one look-back of the change, and when it was contested."""
    reference = np.sort(rng.standard_gamma(8, REFERENCE).astype(np.float32))
    scale = Scale.from_energies(reference)
    look_back = LookBack(scale)
    limit = estimate_first_threshold(reference, percentile)
    contested: int | None = None
    for window in range(2 * WINDOWS):
        energies = (rng.standard_gamma(8, EVENTS) if window < WINDOWS else change(rng, EVENTS)).astype(np.float32)
        look_back.add(window, summarise(energies, energies > limit.value, scale))
        if window < WINDOWS:
            continue
        look_back.evict(window - WINDOWS)
        limit = choose_threshold(limit, look_back.sketch(), reference, percentile)
        if contested is None and is_contested(limit.method, limit.details):
            contested = window - WINDOWS + 1
    return tail(limit.value) / exceedance(percentile), contested
