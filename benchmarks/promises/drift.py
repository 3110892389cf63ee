"""Drift: false alarms over promised ones on window summaries, and what is found of a change.

Summaries of one horizon are Gaussian and autocorrelated over horizons; in the table of power they are mean ranks and
products of pairs of real draws of 30 features.
"""

import numpy as np
from scipy import signal

from benchmarks.promises import table
from monitor.drift import against_days_before, fit_base, judge_drift
from monitor.yardstick import RANK_UNIT

ALPHA = 1e-3
STATISTICS = 40
FEATURES, EVENTS = 30, 6000
DAY = 144
TEN_MINUTES_US = 600_000_000


def _waves(rng: np.random.Generator, blocks: int, rho: float) -> np.ndarray:
    noise = rng.standard_normal((blocks + 200, STATISTICS), dtype=np.float32)
    return np.asarray(signal.lfilter(np.float32([1]), np.float32([1, -rho]), noise, axis=0)[200:], np.float64)


def _promise(times: int, seed: int) -> None:
    units = np.ones(STATISTICS)
    rows: list[list[object]] = []
    for rho in (0.0, 0.5, 0.9):
        for blocks in (30, 100, 300):
            rng = np.random.default_rng([seed, int(rho * 10), blocks])
            fired = dict.fromkeys(("predictive t", "mean + 3 sigma", "plain percentile"), 0)
            for _ in range(times):
                x = _waves(rng, blocks + 30, rho)
                past, now = x[:blocks], x[-1]
                base = fit_base(past, np.full(blocks, EVENTS), units)
                verdict = judge_drift(base, now, EVENTS, units, alpha=ALPHA, min_effect=0)
                fired["predictive t"] += bool(verdict and verdict.drifted)
                fired["mean + 3 sigma"] += bool((np.abs(now - past.mean(axis=0)) > 3 * past.std(axis=0)).any())
                fired["plain percentile"] += bool(((now > past.max(axis=0)) | (now < past.min(axis=0))).any())
            rows.extend([rho, blocks, name, count / times / ALPHA] for name, count in fired.items())
    rows.append(["any", "any", "always fire", 1 / ALPHA])
    table.show(
        f"{STATISTICS} statistics, promised {ALPHA:g} a horizon, effect floor off; {times:,} draws a row",
        ("rho", "base", "alarm by", "false / promised"),
        rows,
    )


def _season(times: int, seed: int) -> None:
    """Print what a daily sine does to a base of a day and to differences against the days before."""
    rng = np.random.default_rng([seed, 7])
    units = np.ones(STATISTICS)
    rows: list[list[object]] = []
    for swing in (0.0, 3.0):
        fired = {"plain": 0, "against the days before": 0}
        verdicts = 0
        for _ in range(times):
            blocks = 6 * DAY
            starts = np.arange(blocks) * TEN_MINUTES_US
            x = _waves(rng, blocks, 0) + swing * np.sin(2 * np.pi * np.arange(blocks) / DAY)[:, None]
            base = fit_base(x[: DAY // 4], np.full(DAY // 4, EVENTS), units)
            _, differences = against_days_before(starts, x)
            seasonal = fit_base(differences[: 2 * DAY], np.full(2 * DAY, EVENTS), units)
            for i in range(1, DAY):
                verdicts += 1
                plain = judge_drift(base, x[-i], EVENTS, units, alpha=ALPHA, min_effect=0)
                other = judge_drift(seasonal, differences[-i], EVENTS, units, alpha=ALPHA, min_effect=0)
                fired["plain"] += bool(plain and plain.drifted)
                fired["against the days before"] += bool(other and other.drifted)
        rows.extend([f"+-{swing:g} sd", name, count / verdicts / ALPHA] for name, count in fired.items())
    table.show(
        "a daily sine, in deviations of a horizon's mean; the plain base is a quarter of a day long",
        ("daily", "compared", "false / promised"),
        rows,
    )


def _ranks_and_products(x: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Return mean ranks by 64 bins at training quantiles, then mean clipped products of all pairs."""
    edges = np.quantile(training, np.arange(1, 64) / 64, axis=0)
    ranks = [(np.searchsorted(edges[:, j], x[:, j]) + 0.5).mean() / 64 for j in range(x.shape[1])]
    z = np.clip((x - training.mean(axis=0)) / training.std(axis=0), -4, 4)
    products = (z.T @ z) / len(z)
    return np.concatenate([ranks, products[np.triu_indices(x.shape[1], 1)]])


def _power(times: int, seed: int) -> None:
    rng = np.random.default_rng([seed, 9])
    training = rng.standard_normal((20_000, FEATURES))
    pairs = FEATURES * (FEATURES - 1) // 2
    units = np.concatenate([np.full(FEATURES, RANK_UNIT), np.ones(pairs)])
    past = np.array([_ranks_and_products(rng.standard_normal((EVENTS, FEATURES)), training) for _ in range(60)])
    base = fit_base(past, np.full(60, EVENTS), units)
    rows: list[list[object]] = []
    named_pair = FEATURES + int(np.flatnonzero((np.array(np.triu_indices(FEATURES, 1)).T == (4, 9)).all(axis=1))[0])
    for change, expected in (("none", -1), ("0.2 sigma in feature 4", 4), ("correlation 0.3 of 4 and 9", named_pair)):
        found = first = 0
        for _ in range(times):
            x = rng.standard_normal((EVENTS, FEATURES))
            if expected == 4:
                x[:, 4] += 0.2
            elif expected > 0:
                x[:, 9] = 0.3 * x[:, 4] + np.sqrt(1 - 0.09) * x[:, 9]
            verdict = judge_drift(base, _ranks_and_products(x, training), EVENTS, units, alpha=ALPHA, min_effect=0.1)
            found += bool(verdict and verdict.drifted)
            first += bool(verdict and verdict.drifted[:1] == (expected,))
        rows.append([change, f"{found / times:.0%}", f"{first / times:.0%}" if expected >= 0 else "-"])
    table.show(
        f"one horizon of {EVENTS:,} events, {FEATURES} features and {pairs} pairs, base of 60 horizons, effect >= 0.1",
        ("change", "found", "named first"),
        rows,
    )


def show(*, quick: bool, seed: int) -> None:
    """Print the tables of drift."""
    print("DRIFT: false alarms / promised of one verdict over all statistics; 1 is kept, above 2 is broken")
    print(f"seed {seed}")
    _promise(times=1500 if quick else 20_000, seed=seed)
    _season(times=2 if quick else 20, seed=seed)
    _power(times=10 if quick else 100, seed=seed)
