"""The sample that a tail law is fitted to: the look-back, the reference, and the windows that fired. Pure functions."""

from collections.abc import Iterable

import numpy as np

from monitor.statistics.part import Float32, Part
from monitor.statistics.sketch import EnergySketch, order_statistic_quantiles
from monitor.thresholds.tail_law import PEAK_SHARE, TailSample, merge_tails

MIN_SAMPLE = 1_000
"""Number of energies up to which the reference fills the sample, besides its weight of a pooled threshold."""


def sample_reference(reference: Float32) -> TailSample:
    """Return the sample of the reference alone, ascending energies."""
    return merge_tails(reference[:0], -np.inf, 0, reference, 1.0, (0.0, _median(reference)))


def sample_look_back(
    sketch: EnergySketch, excluded: Iterable[Part], reference: Float32, *, threshold: float, dispersion: float
) -> TailSample:
    """Return the sample of a tick.

    Windows that fired and are excluded from the look-back take part with their energies up to the threshold, and with
    one energy at it if they have more above. Five unclipped outliers among 10,000 energies would raise the law above
    all further ones. Without these windows, each false alarm would lower the law, and cause the next one.

    Args:
        sketch: Sketch of the look-back.
        excluded: The excluded windows. Those whose lists of largest energies do not reach down as far as those of the
            look-back are left out.
        reference: The reference energies, ascending.
        threshold: The threshold of the tick.
        dispersion: Dispersion of the outlier counts, at least 1.
    """
    if not sketch.n:
        return sample_reference(reference)
    tops, n = [sketch.top], sketch.n
    for part in excluded:
        if part.complete_above > min(sketch.complete_above, threshold):
            continue
        below = part.top[part.top <= threshold]
        n_above = len(part.top) - len(below)
        tops.append(np.append(below, np.float32(threshold)) if n_above else below)
        n += part.events - max(n_above - 1, 0)
    return merge_tails(
        np.concatenate(tops),
        sketch.complete_above,
        n,
        reference,
        weigh_reference(len(reference), n, dispersion),
        (sketch.binned_median(), _median(reference)),
    )


def weigh_reference(reference_n: int, n: int, dispersion: float) -> float:
    """Return the number of live energies that a reference energy counts as.

    The weight is that of a pooled threshold at the exceedance of the level (`monitor.thresholds.pooled`), where a
    reference of any size counts as at most D / `PEAK_SHARE` live energies, and more while there are few live ones.
    """
    if not reference_n:
        return 0.0
    pooled = dispersion / (dispersion + reference_n * PEAK_SHARE)
    return min(1.0, max(pooled, (MIN_SAMPLE - n) / reference_n))


def _median(ascending: Float32) -> float:
    return float(order_statistic_quantiles(ascending, np.array([0.5]))[0]) if len(ascending) else 0.0
