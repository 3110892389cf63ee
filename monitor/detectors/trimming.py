"""Detectors: what of a sample is ordinary, where some of its rows are known to be strange. Pure.

Strange rows must shape neither how columns are standardised nor where components begin. So a trimmed single
Gaussian first finds the columns' size, and a trimmed mixture in those units then finds the ordinary rows:
concentration steps as in FAST-MCD (Rousseeuw and Van Driessen 1999), with a mixture for the Gaussian. A tight
group of like rows is a mode to a mixture, not strange.
"""

import numpy as np
from numpy.typing import NDArray

from monitor.detectors import em
from monitor.detectors.passes import Plan, Task, densest
from monitor.detectors.processes import Processes
from monitor.detectors.sample import Sample
from monitor.detectors.scaling import column_scaling
from monitor.detectors.selection import LARGEST_AUTO, best_start

# A component of fewer rows for each of its columns would hold on to strange ones.
_ROWS_PER_COLUMN = 20


def core(sample: Sample, plan: Plan, rng: np.random.Generator) -> tuple[Sample, NDArray[np.bool_]]:
    """Return the sample standardised by its ordinary rows, and which those are."""
    n, d = sample.events.shape
    room = max(1, min(LARGEST_AUTO, n // (_ROWS_PER_COLUMN * (d + 1))))
    inside = np.ones(n, dtype=np.bool_)
    for k in (1, plan.n_components or room):
        shrinkage = sample.shrinkage(plan, inside)
        task = Task(plan=plan, shrinkage=shrinkage, processes=Processes(rank=0, size=1))
        factors = em.factorise(best_start(sample.rows, k, task, rng).mixture)
        kept, _ = densest(sample.rows, factors, task)
        assert kept.inside is not None
        inside = kept.inside
        scaling = column_scaling(sample.events[inside], sample.weights[inside], lambda total: total, lambda most: most)
        sample = sample.rescaled(scaling.common() if plan.covariance_type == "spherical" else scaling)
    return sample, inside
