"""Thresholds after a contaminated warm-up: ratio of clean to nominal exceedance, by treatment of the outliers.

The model and its reference energies come from the warm-up events alone; there is no look-back yet.
"""

import numpy as np

from benchmarks.statistical import table
from config.streams import ModelSettings
from monitor.detectors.gaussian_mixture import GaussianMixture
from monitor.models.fitting import fit_model
from monitor.models.training_set import TrainingSet

N = 2_000
LIVE = 20_000
PERCENTILE = 99.0
OUTLIER_CENTRE = np.array([12.0, -12, 12])
SHARES = (0.0, 0.01, 0.05)
KINDS = ("gross", "tight group")
METHODS = ("contamination 0", "contamination set", "all events, plain percentile", "all events, mean + 3 sigma")


def _clean_events(rng: np.random.Generator, n: int) -> np.ndarray:
    """Draw events from two modes."""
    events = rng.normal(size=(n, 3)) @ np.array([[1, 0.5, 0], [0, 1, 0.3], [0, 0, 1]])
    second = rng.random(n) < 0.4
    events[second] = events[second] * 0.6 + 4
    return events.astype(np.float32)


def _outliers(rng: np.random.Generator, kind: str, n: int) -> np.ndarray:
    events = rng.normal(size=(n, 3)) * 40 if kind == "gross" else OUTLIER_CENTRE + 0.3 * rng.normal(size=(n, 3))
    return events.astype(np.float32)


def _compare_methods(kind: str, share: float, seed: int) -> dict[str, tuple[float, float]]:
    """Return, for each method, the ratio of clean to nominal exceedance and the recall of the outliers."""
    rng = np.random.default_rng([seed, round(share * 1000), KINDS.index(kind)])
    events, n_outliers = _clean_events(rng, N), round(share * N)
    events[rng.permutation(N)[:n_outliers]] = _outliers(rng, kind, n_outliers)
    clean_events, outliers = _clean_events(rng, LIVE), _outliers(rng, kind, 1_000)
    training = TrainingSet(features=events, names=("a", "b", "c"), rejected=0, exhausted=True)
    fitted = {}
    for name, contamination in (("contamination 0", 0.0), ("contamination set", share)):
        model = fit_model(training, ModelSettings(contamination=contamination))
        fitted[name] = (model.detector, float(np.quantile(model.reference, PERCENTILE / 100)))
    mixture = GaussianMixture(n_components="auto", random_state=0).fit(events)
    energies = np.asarray(mixture.energy(events), np.float64)
    fitted["all events, plain percentile"] = (mixture, float(np.quantile(energies, PERCENTILE / 100)))
    fitted["all events, mean + 3 sigma"] = (mixture, float(energies.mean() + 3 * energies.std()))
    nominal = 1 - PERCENTILE / 100
    return {
        name: (
            float((detector.energy(clean_events) > threshold).mean()) / nominal,
            float((detector.energy(outliers) > threshold).mean()),
        )
        for name, (detector, threshold) in fitted.items()
    }


def show(*, quick: bool, seed: int) -> None:
    """Print the table of contaminated warm-ups."""
    seeds = range(seed, seed + (3 if quick else 10))
    print("WARM-UP: clean exceedance / nominal after a fit on contaminated events; 1 is ideal, 0 detects nothing")
    print(f"p{PERCENTILE:g}, {N:,} events of two modes in 3 features; seeds {seeds[0]} to {seeds[-1]}")
    rows: list[list[object]] = []
    for kind in KINDS:
        for share in SHARES:
            results = [_compare_methods(kind, share, each) for each in seeds]
            for name in METHODS:
                ratios = np.array([result[name][0] for result in results])
                recall = float(np.mean([result[name][1] for result in results]))
                smallest, median, largest = np.quantile(ratios, (0, 0.5, 1)).tolist()
                rows.append([kind, f"{share:.0%}", name, smallest, median, largest, f"{recall:.0%}"])
    rows.append(["any", "any", "always fire", *[100 / (100 - PERCENTILE)] * 3, "100%"])
    table.show("by seed", ("outliers", "share", "threshold", "least", "median", "most", "recall"), rows)
