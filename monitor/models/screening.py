"""Screening: which training events are strange beyond doubt, so that they do not shape the model. Pure.

Concentration steps as in FAST-MCD (Rousseeuw and Van Driessen 1999), with a mixture for the one Gaussian: a first
mixture may spend a component on the outliers, but they still have the largest energies; one fitted without the tenth
of the largest has not seen them, and its energies tell. Down-weighting to zero and fitting again is the reweighting.

What is beyond doubt lies three times as far from the median as the tail that the body of the energies has reaches in
so many events (`monitor.thresholds.body`): heavy tails stay. A tight group of like events is a mode of the stream and
no outlier, unless `contamination` says how many events are strange: then components that are no larger and far from all
others are strange, and the share is left out in full.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.detectors.gaussian_mixture import GaussianMixture
from monitor.thresholds.body import fit_body

Float32 = NDArray[np.float32]

CORE_FRACTION = 0.9
TAIL_REACH_FACTOR = 3.0
MIN_DISTANCE_NATS = 10.0
CONTAMINATION_TOLERANCE = 1.5
"""A strange component may be larger than the share that was said: nobody knows it to the event."""

MAX_EXCLUDED_FRACTION = 0.1
"""More than a tenth is no handful of outliers but a second half of the truth: nothing is left out then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreeningResult:
    """Which events are kept, and the mixture of all where it was fitted anyway."""

    kept: NDArray[np.bool_]
    mixture: GaussianMixture

    @property
    def all_kept(self) -> bool:
        """Say whether no event is left out."""
        return bool(self.kept.all())

    @property
    def n_excluded(self) -> int:
        """Return how many events are left out."""
        return int((~self.kept).sum())


def screen_events(
    features: Float32, contamination: float, fit: Callable[[Float32, Any], GaussianMixture]
) -> ScreeningResult:
    """Return which training events to fit on.

    Args:
        features: All of them, without missing values.
        contamination: The share that is taken to be strange; 0 leaves out what is beyond doubt.
        fit: Fits a mixture on events, with so many components (None for what the settings say).
    """
    mixture = fit(features, None)
    if contamination > 0:
        core = _mask_largest(_energies_without_anomalous_components(mixture, features, contamination), contamination)
        kept = _mask_largest(fit(features[core], None).energy(features), contamination)
        return ScreeningResult(kept=kept, mixture=mixture)
    core = _mask_largest(mixture.energy(features), 1 - CORE_FRACTION)
    energies = fit(features[core], len(mixture.weights_)).energy(features)
    kept = energies <= max_clean_energy(energies)
    if (~kept).mean() > MAX_EXCLUDED_FRACTION:
        kept = np.ones(len(features), np.bool_)
    return ScreeningResult(kept=kept, mixture=mixture)


def max_clean_energy(energies: NDArray[np.floating[Any]]) -> float:
    """Return the energy above which no clean event is expected, whatever its tail."""
    ascending = np.sort(energies.astype(np.float32))
    median = float(np.median(ascending))
    reach = fit_body(ascending, 1 / len(ascending)).quantile(1 / len(ascending)) - median
    return median + max(TAIL_REACH_FACTOR * reach, MIN_DISTANCE_NATS)


def _mask_largest(energies: NDArray[np.floating[Any]], share: float) -> NDArray[np.bool_]:
    kept = np.ones(len(energies), np.bool_)
    out = round(share * len(energies))
    if out:
        kept[np.argsort(energies, kind="stable")[-out:]] = False
    return kept


def _energies_without_anomalous_components(
    mixture: GaussianMixture, features: Float32, contamination: float
) -> NDArray[np.floating[Any]]:
    """Return the energies under the mixture without its strange components: small ones that are far from the rest."""
    place, energies = mixture.predict(features), mixture.energy(features)
    if mixture.covariance_type == "tied":
        return energies
    alive = np.ones(len(mixture.weights_), np.bool_)
    for k in np.argsort(mixture.weights_, kind="stable"):
        rest = alive.copy()
        rest[k] = False
        if mixture.weights_[~rest].sum() > contamination * CONTAMINATION_TOLERANCE or not rest.any():
            break
        others = GaussianMixture.from_parameters(
            mixture.weights_[rest] / mixture.weights_[rest].sum(),
            mixture.means_[rest],
            mixture.covariances_[rest],
            covariance_type=mixture.covariance_type,
        ).energy(features)
        own = place == k
        if not own.any() or np.median(others[own]) > max_clean_energy(others):
            alive, energies = rest, others
    return energies
