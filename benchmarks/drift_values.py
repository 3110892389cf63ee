"""Error of the values that an incident of drift tells: from samples of events, and from the moments of their ranks.

    python benchmarks/drift_values.py

For four distributions of training values and four changes it prints the error of the 5%, 50% and 95% quantile after the
change, in training deviations: of the beta distribution that is fitted to the ranks among the training values, and of
samples of 40, 300 and 2,000 events (root mean square of 60 draws).
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # as a script, this folder would be first in the import path

from monitor.statistics.drift_summary import summarise_ranks  # noqa: E402 -- see above
from monitor.statistics.feature_histograms import from_sample, quantiles_of  # noqa: E402 -- see above
from monitor.statistics.training_profile import N_BINS, build_feature_profile, centred_ranks  # noqa: E402 -- see above

Float64 = NDArray[np.float64]
RNG = np.random.default_rng(0)
QUANTILES = [0.05, 0.5, 0.95]
DRAWS = 60

VALUES: dict[str, Callable[[int], Float64]] = {
    "normal": lambda n: RNG.normal(30, 5, n),
    "lognormal": lambda n: RNG.lognormal(3, 0.6, n),
    "two modes": lambda n: np.where(RNG.random(n) < 0.7, RNG.normal(20, 3, n), RNG.normal(44, 3, n)),
    "integers": lambda n: RNG.poisson(4, n).astype(np.float64),
}
CHANGES: dict[str, Callable[[Float64, float], Float64]] = {
    "1 deviation up": lambda x, deviation: x + deviation,
    "1.5 times as large": lambda x, _: 1.5 * x,
    "half of them 2 up": lambda x, deviation: np.where(RNG.random(len(x)) < 0.5, x + 2 * deviation, x),
    "4 deviations up": lambda x, deviation: x + 4 * deviation,
}


def main() -> None:
    """Print the errors of each distribution and change."""
    for name, draw in VALUES.items():
        training = draw(10_000)
        for change, apply in CHANGES.items():
            after = apply(draw(200_000), float(training.std()))
            errors = [error_of_ranks(training, after), *(error_of_sample(training, after, m) for m in (40, 300, 2_000))]
            columns = "  ".join(str(np.round(each, 2)) for each in errors)
            print(f"{name:10} {change:20} ranks and samples of 40, 300, 2,000: {columns}")


def error_of_ranks(training: Float64, after: Float64) -> Float64:
    """Return the error of the fitted ranks in training deviations, (3,)."""
    profile = build_feature_profile(training[:, None])
    edges = profile.edges[0]
    ranks = centred_ranks(after[None].astype(edges.dtype), profile.edges)[0] / (2.0 * N_BINS)
    told = summarise_ranks(0.5 + float(ranks.mean()), float((ranks**2).mean()), edges, float(profile.centre[0]))
    return np.abs(np.array([told.low, told.median, told.high]) - np.quantile(after, QUANTILES)) / training.std()


def error_of_sample(training: Float64, after: Float64, m: int) -> Float64:
    """Return the root mean square error of samples of m events in training deviations, (3,)."""
    truth, errors = np.quantile(after, QUANTILES), []
    for _ in range(DRAWS):
        sample = from_sample(RNG.choice(after, m)[:, None], np.ones(m))
        errors.append(np.array(quantiles_of(sample, 0))[[0, 2, 4]] - truth)
    return np.asarray(np.sqrt(np.mean(np.square(errors), axis=0)) / training.std(), np.float64)


if __name__ == "__main__":
    main()
