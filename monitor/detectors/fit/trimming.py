"""Detectors: what of a sample is ordinary, where some of its rows are known to be strange. Pure.

Strange rows must shape neither how columns are standardised nor where components begin. So a trimmed single
Gaussian first finds the columns' size, and a trimmed mixture in those units then finds the ordinary rows:
concentration steps as in FAST-MCD (Rousseeuw and Van Driessen 1999), with a mixture for the Gaussian. A tight
group of like rows is a mode to a mixture, not strange.
"""

import numpy as np
from numpy.typing import NDArray

from monitor.detectors.fit import em
from monitor.detectors.fit.iterations import FitContext, trim_rows
from monitor.detectors.fit.process_group import ProcessGroup
from monitor.detectors.fit.sample import TrainingSample
from monitor.detectors.fit.selection import MAX_AUTO_COMPONENTS, best_initialisation
from monitor.detectors.fit.settings import FitSettings
from monitor.detectors.inputs.scaling import fit_column_scaling

# A component of fewer rows for each of its columns would hold on to strange ones.
_MIN_ROWS_PER_COLUMN = 20


def select_core(
    sample: TrainingSample, plan: FitSettings, rng: np.random.Generator
) -> tuple[TrainingSample, NDArray[np.bool_]]:
    """Return the sample standardised by its ordinary rows, and which those are."""
    n, d = sample.events.shape
    room = max(1, min(MAX_AUTO_COMPONENTS, n // (_MIN_ROWS_PER_COLUMN * (d + 1))))
    inside = np.ones(n, dtype=np.bool_)
    for k in (1, plan.n_components or room):
        shrinkage = sample.make_shrinkage(plan, inside)
        task = FitContext(settings=plan, shrinkage=shrinkage, processes=ProcessGroup(rank=0, size=1))
        factors = em.factorise(best_initialisation(sample.rows, k, task, rng).mixture)
        kept, _ = trim_rows(sample.rows, factors, task)
        assert kept.included is not None
        inside = kept.included
        scaling = fit_column_scaling(
            sample.events[inside], sample.weights[inside], lambda total: total, lambda most: most
        )
        sample = sample.rescaled(scaling.with_common_scale() if plan.covariance_type == "spherical" else scaling)
    return sample, inside
