"""Usual values and the typical energy of the training events, from their stored profile. Pure functions."""

import numpy as np
from numpy.typing import NDArray

from monitor.statistics.training_profile import FeatureProfile, value_at_rank

F64 = NDArray[np.float64]

USUAL_RANKS = (0.05, 0.95)
"""The ends of the usual range, as ranks among the training values."""

TYPICAL_PERCENTILE = 95.0
"""Events above this percentile of the energies are not typical: a single gross event would move a mean."""


def usual_range(profile: FeatureProfile) -> F64:
    """Return the 5% and the 95% quantile of the training values of each feature, (2, D)."""
    return np.array([[value_at_rank(rank, edges) for edges in profile.edges] for rank in USUAL_RANKS])


def mean_typical_energy(energies: NDArray[np.floating]) -> float:
    """Return the mean of the energies, (n,), at or below their 95th percentile, in nats."""
    wide = energies.astype(np.float64)
    return float(wide[wide <= np.percentile(wide, TYPICAL_PERCENTILE)].mean())
