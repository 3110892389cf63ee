"""Selection of the core of a contaminated sample: the rows without the outliers.

Outliers must not influence the scaling of the columns or the initialisation. Therefore a trimmed Gaussian estimates
the scaling first, and a trimmed mixture of the rescaled rows then selects the core. Both use concentration steps as
in FAST-MCD (Rousseeuw and Van Driessen 1999); the second has a mixture in place of the Gaussian. For a mixture a
tight group of similar rows is a mode, not a group of outliers.
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

# A component with fewer rows per column could be fitted to outliers.
_MIN_ROWS_PER_COLUMN = 20


def select_core(
    sample: TrainingSample, settings: FitSettings, rng: np.random.Generator
) -> tuple[TrainingSample, NDArray[np.bool_]]:
    """Return the sample standardised by its core, and the mask of the core."""
    n, d = sample.events.shape
    max_components = max(1, min(MAX_AUTO_COMPONENTS, n // (_MIN_ROWS_PER_COLUMN * (d + 1))))
    core = np.ones(n, dtype=np.bool_)
    for k in (1, settings.n_components or max_components):
        shrinkage = sample.make_shrinkage(settings, core)
        context = FitContext(settings=settings, shrinkage=shrinkage, processes=ProcessGroup(rank=0, size=1))
        factors = em.factorise(best_initialisation(sample.rows, k, context, rng).mixture)
        trimmed, _ = trim_rows(sample.rows, factors, context)
        assert trimmed.included is not None
        core = trimmed.included
        scaling = fit_column_scaling(
            sample.events[core], sample.weights[core], lambda total: total, lambda extremes: extremes
        )
        sample = sample.rescaled(scaling.with_common_scale() if settings.covariance_type == "spherical" else scaling)
    return sample, core
