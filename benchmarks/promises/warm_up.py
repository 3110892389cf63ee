"""Limits after a contaminated warm-up: the clean exceedance over the nominal one, by what is done about the outliers.

The warm-up is all that a model is fitted on and its reference energies come from; nobody has a clean look-back yet.
"""

import numpy as np

from benchmarks.promises import table
from config.streams import ModelSettings
from monitor.detectors.gaussian_mixture import GaussianMixture
from monitor.models.fitting import fit_model
from monitor.models.training_events import TrainingSet

N = 2_000
LIVE = 20_000
PERCENTILE = 99.0
FAR = np.array([12.0, -12, 12])
SHARES = (0.0, 0.01, 0.05)
KINDS = ("gross", "tight group")
METHODS = ("as it comes", "share is said", "all taken, plain percentile", "all taken, mean + 3 sigma")


def _clean(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return events of two modes."""
    events = rng.normal(size=(n, 3)) @ np.array([[1, 0.5, 0], [0, 1, 0.3], [0, 0, 1]])
    second = rng.random(n) < 0.4
    events[second] = events[second] * 0.6 + 4
    return events.astype(np.float32)


def _strange(rng: np.random.Generator, kind: str, n: int) -> np.ndarray:
    events = rng.normal(size=(n, 3)) * 40 if kind == "gross" else FAR + 0.3 * rng.normal(size=(n, 3))
    return events.astype(np.float32)


def _realised(kind: str, share: float, seed: int) -> dict[str, tuple[float, float]]:
    """Return, by method, the clean exceedance over the nominal one and the share of strange events that is found."""
    rng = np.random.default_rng([seed, round(share * 1000), KINDS.index(kind)])
    events, out = _clean(rng, N), round(share * N)
    events[rng.permutation(N)[:out]] = _strange(rng, kind, out)
    own, others = _clean(rng, LIVE), _strange(rng, kind, 1_000)
    training = TrainingSet(features=events, names=("a", "b", "c"), rejected=0, exhausted=True)
    found = {}
    for name, said in (("as it comes", 0.0), ("share is said", share)):
        model = fit_model(training, ModelSettings(contamination=said))
        found[name] = (model.detector, float(np.quantile(model.reference, PERCENTILE / 100)))
    mixture = GaussianMixture(n_components="auto", random_state=0).fit(events)
    energies = np.asarray(mixture.energy(events), np.float64)
    found["all taken, plain percentile"] = (mixture, float(np.quantile(energies, PERCENTILE / 100)))
    found["all taken, mean + 3 sigma"] = (mixture, float(energies.mean() + 3 * energies.std()))
    nominal = 1 - PERCENTILE / 100
    return {
        name: (
            float((detector.energy(own) > limit).mean()) / nominal,
            float((detector.energy(others) > limit).mean()),
        )
        for name, (detector, limit) in found.items()
    }


def show(*, quick: bool, seed: int) -> None:
    """Print the table of contaminated warm-ups."""
    seeds = range(seed, seed + (3 if quick else 10))
    print("WARM-UP: clean exceedance / nominal after a fit on contaminated events; 1 is right, 0 is blind")
    print(f"p{PERCENTILE:g}, {N:,} events of two modes in 3 features; seeds {seeds[0]} to {seeds[-1]}")
    rows: list[list[object]] = []
    for kind in KINDS:
        for share in SHARES:
            draws = [_realised(kind, share, each) for each in seeds]
            for name in METHODS:
                exceeded = np.array([draw[name][0] for draw in draws])
                strange = float(np.mean([draw[name][1] for draw in draws]))
                least, middle, most = np.quantile(exceeded, (0, 0.5, 1)).tolist()
                rows.append([kind, f"{share:.0%}", name, least, middle, most, f"{strange:.0%}"])
    rows.append(["any", "any", "always fire", *[100 / (100 - PERCENTILE)] * 3, "100%"])
    table.show("by seed", ("outliers", "share", "limit", "least", "median", "most", "of them found"), rows)
