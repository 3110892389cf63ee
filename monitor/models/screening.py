"""Screening: exclude gross outliers from the training events. Pure functions.

The method uses concentration steps as in FAST-MCD (Rousseeuw and Van Driessen 1999), with a mixture in place of the
single Gaussian:

1. Fit a mixture. It may assign a component to the outliers, but their energies are still the largest.
2. Fit a second mixture without the tenth of the events with the largest energies. Outliers have large energies under
   it, because it was fitted without them.
3. Propose to exclude the gross outliers by these energies.
4. Return proposed events that recur in the stream (`monitor.models.recurrence`): they are of a mode that the second
   mixture does not know. The caller fits again, which corresponds to the reweighting step.

The tail of the body of the energies, extrapolated to a sample of this size (`monitor.thresholds.body`), gives the
largest expected distance from the median. A gross outlier has more than `TAIL_REACH_FACTOR` times this distance. Events
of a heavy tail remain.

A tight group of similar events counts as a mode of the stream, not as outliers, unless `contamination` gives the
fraction of anomalous events. Components that are far from all others, and not larger than this fraction times
`CONTAMINATION_TOLERANCE`, are then anomalous, and exactly the given fraction is excluded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.detectors.gaussian_mixture import GaussianMixture
from monitor.models.recurrence import find_recurring
from monitor.statistics.training_profile import Floats
from monitor.thresholds.body import fit_body

CORE_FRACTION = 0.9
TAIL_REACH_FACTOR = 3.0
MIN_DISTANCE_NATS = 10.0
CONTAMINATION_TOLERANCE = 1.5
"""Maximum weight of an anomalous component, as a multiple of `contamination`, which is an estimate."""

MAX_EXCLUDED_FRACTION = 0.1
"""More than a tenth cannot be a few outliers and is probably a mode of the stream: nothing is proposed then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreeningResult:
    """The result of screening: masks over all events, (n,), and the mixture fitted on all events.

    Attributes:
        kept: The events to fit on.
        in_reference: The events with reference energies: those to fit on, and those of usual episodes.
        n_recurring: The number of proposed events that recur and are therefore kept.
        mixture: The mixture fitted on all events.
    """

    kept: NDArray[np.bool_]
    in_reference: NDArray[np.bool_]
    n_recurring: int
    mixture: GaussianMixture

    @property
    def all_kept(self) -> bool:
        """True if no event is excluded."""
        return bool(self.kept.all())

    @property
    def n_excluded(self) -> int:
        """The number of excluded events."""
        return int((~self.kept).sum())

    @property
    def n_episodic(self) -> int:
        """The number of excluded events that are in the reference."""
        return int((self.in_reference & ~self.kept).sum())


def screen_events(
    features: Floats, contamination: float, fit: Callable[[Floats, Any], GaussianMixture]
) -> ScreeningResult:
    """Select the training events to fit on.

    Args:
        features: The features of all events, (n, D), without missing values.
        contamination: The fraction of anomalous events; 0 excludes gross outliers only.
        fit: Fits a mixture on events with a number of components (None for the number in the settings).
    """
    mixture = fit(features, None)
    if contamination > 0:
        core = _mask_largest(_energies_without_anomalous_components(mixture, features, contamination), contamination)
        kept = _mask_largest(fit(features[core], None).energy(features), contamination)
        return ScreeningResult(kept=kept, in_reference=kept, n_recurring=0, mixture=mixture)
    core = _mask_largest(mixture.energy(features), 1 - CORE_FRACTION)
    energies = fit(features[core], len(mixture.weights_)).energy(features)
    proposed = energies > max_clean_energy(energies)
    if proposed.mean() > MAX_EXCLUDED_FRACTION:
        proposed = np.zeros(len(features), np.bool_)
    recurrence = find_recurring(features, proposed)
    kept = ~proposed | recurrence.recurring
    return ScreeningResult(
        kept=kept,
        in_reference=kept | recurrence.episodic,
        n_recurring=int(recurrence.recurring.sum()),
        mixture=mixture,
    )


def max_clean_energy(energies: NDArray[np.floating[Any]]) -> float:
    """Return the energy above which no clean event is expected, even with a heavy tail."""
    ascending = np.sort(energies.astype(np.float32))
    median = float(np.median(ascending))
    tail_reach = fit_body(ascending, 1 / len(ascending)).quantile(1 / len(ascending)) - median
    return median + max(TAIL_REACH_FACTOR * tail_reach, MIN_DISTANCE_NATS)


def _mask_largest(energies: NDArray[np.floating[Any]], fraction: float) -> NDArray[np.bool_]:
    """Return a mask that is False for the given fraction of events with the largest energies."""
    kept = np.ones(len(energies), np.bool_)
    n_excluded = round(fraction * len(energies))
    if n_excluded:
        kept[np.argsort(energies, kind="stable")[-n_excluded:]] = False
    return kept


def _energies_without_anomalous_components(
    mixture: GaussianMixture, features: Floats, contamination: float
) -> NDArray[np.floating[Any]]:
    """Return the energies under the mixture without its anomalous components: small ones far from all others."""
    assignment, energies = mixture.predict(features), mixture.energy(features)
    if mixture.covariance_type == "tied":
        return energies
    active = np.ones(len(mixture.weights_), np.bool_)
    for k in np.argsort(mixture.weights_, kind="stable"):
        without_k = active.copy()
        without_k[k] = False
        if mixture.weights_[~without_k].sum() > contamination * CONTAMINATION_TOLERANCE or not without_k.any():
            break
        rest_energies = GaussianMixture.from_parameters(
            mixture.weights_[without_k] / mixture.weights_[without_k].sum(),
            mixture.means_[without_k],
            mixture.covariances_[without_k],
            covariance_type=mixture.covariance_type,
        ).energy(features)
        in_component = assignment == k
        if not in_component.any() or np.median(rest_energies[in_component]) > max_clean_energy(rest_energies):
            active, energies = without_k, rest_energies
    return energies
