"""Limits under contamination: the clean exceedance over the nominal one, on parts of windows, by the code that runs.

Every recomputation has a look-back of its own, 100 windows of 500 events, whose clean energies are the reference's at
another location and scale; the outliers just above the limit are put there by somebody who knows the limit in force.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from benchmarks.promises import table
from monitor.limits import anchored_limit, exceedance, percentile_limit
from monitor.parts import Scale, summarise_windows
from monitor.sketch import EnergySketch

PERCENTILES = (99.0, 99.5, 99.9)
SHARES = (0.0, 0.001, 0.005, 0.02, 0.05)
KINDS = ("gross", "just above", "bursts")
WINDOWS, EVENTS, REFERENCE = 100, 500, 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """A law of clean energies: how to draw them, and the exact exceedance of a limit."""

    name: str
    draw: Callable[[np.random.Generator, int], np.ndarray]
    tail: Callable[[float], float]


def _two_bodies(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.standard_gamma(4, n) + np.where(rng.random(n) < 0.2, 10.0, 0.0)


LAWS = (
    Law(name="gamma 8", draw=lambda rng, n: rng.standard_gamma(8, n), tail=lambda e: stats.gamma(8).sf(e)),
    Law(
        name="two bodies",
        draw=_two_bodies,
        tail=lambda e: 0.8 * stats.gamma(4).sf(e) + 0.2 * stats.gamma(4).sf(e - 10),
    ),
    Law(name="gamma 1", draw=lambda rng, n: rng.standard_gamma(1, n), tail=lambda e: stats.gamma(1).sf(e)),
    Law(name="gamma 30", draw=lambda rng, n: rng.standard_gamma(30, n), tail=lambda e: stats.gamma(30).sf(e)),
)


def _outliers(
    rng: np.random.Generator, kind: str, share: float, clean: np.ndarray, limit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return where outliers replace clean energies and what they are."""
    n = len(clean)
    spread = float(np.subtract(*np.quantile(clean, (0.75, 0.25))))
    if kind == "bursts":  # half of a window
        windows = rng.permutation(WINDOWS)[: max(1, round(share * WINDOWS / 0.5))]
        at = (windows[:, None] * EVENTS + np.arange(EVENTS // 2)).ravel()[: round(share * n)]
    else:
        at = rng.permutation(n)[: round(share * n)]
    if kind == "just above":
        return at, limit + spread * rng.uniform(0, 0.5, len(at))
    return at, np.median(clean) + spread * rng.uniform(10, 200, len(at))


def _path(recomputations: int, iqr: float, begin: float) -> Iterator[tuple[float, float]]:
    """Yield location and scale of the clean energies: the scale from 0.2 to 10, the location two IQR to each side."""
    for i in range(recomputations):
        phase = 2 * np.pi * (begin + i / recomputations)
        yield 2 * iqr * np.sin(3 * phase), float(np.sqrt(2) * np.exp(np.log(50) / 2 * np.sin(phase)))


def _ratios(
    law: Law, kind: str, share: float, percentile: float, *, recomputations: int, rng: np.random.Generator
) -> dict[str, list[float]]:
    reference = np.sort(law.draw(rng, REFERENCE).astype(np.float32))
    scale = Scale.of(reference)
    a = exceedance(percentile)
    windows = np.repeat(np.arange(WINDOWS), EVENTS)
    limits = dict.fromkeys(("anchored", "plain percentile", "mean + 3 sigma"), None)
    found: dict[str, list[float]] = {name: [] for name in limits}
    in_force = float(np.quantile(reference, 1 - a))
    before = (0.0, 1.0)
    for location, width in _path(recomputations, scale.iqr, rng.random()):
        clean = location + width * law.draw(rng, WINDOWS * EVENTS)
        known = location + width * (in_force - before[0]) / before[1]
        at, energies = _outliers(rng, kind, share, clean, known)
        clean[at] = energies
        energies = clean.astype(np.float32)
        _, parts = summarise_windows(energies, energies > known, windows, scale)
        sketch = EnergySketch.from_parts(parts, scale)
        anchored = anchored_limit(sketch, reference, percentile).value
        limits = {
            "anchored": anchored,
            "plain percentile": percentile_limit(sketch, percentile).value,
            "mean + 3 sigma": float(energies.mean(dtype=np.float64) + 3 * energies.std(dtype=np.float64)),
        }
        for name, limit in limits.items():
            found[name].append(law.tail((limit - location) / width) / a)
        in_force, before = anchored, (location, width)
    return found


def show(*, quick: bool, seed: int) -> None:
    """Print the table of limits."""
    laws = LAWS[:2] if quick else LAWS
    seeds = [seed] if quick else [seed + i for i in range(10)]
    recomputations = 12 if quick else 20
    print("LIMITS: clean exceedance / nominal; 1 is right, 0 is blind; a method holds where all of it is in 1/3..3")
    print("the clean location moves by two IQR to each side, the clean scale from 0.2 to 10")
    print(f"seeds {seeds[0]}..{seeds[-1]}, {recomputations} recomputations each")
    print(f"laws: {', '.join(law.name for law in laws)}")
    print(f"look-back {WINDOWS * EVENTS:,} events in {WINDOWS} windows, {REFERENCE:,} reference energies")
    for percentile in PERCENTILES:
        rows: list[list[object]] = []
        for share in SHARES:
            for kind in KINDS if share else ("none",):
                pooled: dict[str, list[float]] = {}
                for number, law in enumerate(laws):
                    for one in seeds:
                        rng = np.random.default_rng([one, number, int(percentile * 10), int(share * 1000)])
                        ratios = _ratios(law, kind, share, percentile, recomputations=recomputations, rng=rng)
                        for name, values in ratios.items():
                            pooled.setdefault(name, []).extend(values)
                for name, values in pooled.items():
                    low, middle, high = np.quantile(values, (0, 0.5, 1)).tolist()
                    holds = f"{np.mean([1 / 3 <= value <= 3 for value in values]):.1%}"
                    rows.append([f"{share:.1%}", kind, name, low, middle, high, holds])
        always = 1 / exceedance(percentile)
        rows.append(["any", "any", "always fire", always, always, always, "0.0%"])
        table.show(f"p{percentile:g}", ("outliers", "kind", "limit", "least", "median", "most", "in 1/3..3"), rows)
