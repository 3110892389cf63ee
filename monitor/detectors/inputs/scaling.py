"""Detectors: the centre and deviation of every column, so that a fit does not depend on units."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from monitor.detectors.inputs.checks import FloatArray

F64 = NDArray[np.float64]
_CHUNK_BYTES = 4 << 20
_MIN_DEVIATION = 1e-140  # squares of what is smaller vanish in float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Columns are standardised as (x - centre) / scale, in float64.

    `reach` is how far the farthest value lies from the centre: in a column that is nearly always the same it
    says more of the column's size than the deviation does. Empty where nobody asks.
    """

    centre: F64
    scale: F64
    max_abs_deviation: F64 = field(default_factory=lambda: np.zeros(0))

    def with_common_scale(self) -> "Scaling":
        """Return the scaling by one deviation for all columns: the root of their mean variance."""
        return replace(self, scale=np.full_like(self.scale, np.sqrt(np.mean(self.scale**2))))

    def standardise(self, x: FloatArray) -> F64:
        """Return the rows in units of each column's deviation, from its centre."""
        z = np.subtract(x, self.centre, dtype=np.float64)
        z /= self.scale
        return z


def row_chunks(n: int, width: int) -> list[slice]:
    """Return slices that cover n rows of float64 in pieces of about 4 MiB."""
    step = max(256, _CHUNK_BYTES // (8 * max(width, 1)))
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def fit_column_scaling(
    x: FloatArray,
    weights: F64 | None,
    add: Callable[[F64], F64],
    largest: Callable[[F64], F64],
) -> Scaling:
    """Return the weighted mean and deviation of the columns, in two passes so that offsets do not cancel.

    A column that is constant has no deviation of its own. Its scale is then the constant's size, or 1 where
    that is zero: a later move is strange in proportion to what the column used to be.

    Args:
        x: Events of this process.
        weights: One weight per event, or None for one each.
        add: Sums an array over all processes (the identity for one).
        largest: The elementwise maximum over all processes (the identity for one).
    """
    d = x.shape[1]
    first = x[0].astype(np.float64) if len(x) else np.zeros(d)
    sums = np.zeros(d + 1)
    extremes = np.full(2 * d, -np.inf)
    for part in row_chunks(len(x), d):
        w = np.ones(part.stop - part.start) if weights is None else weights[part]
        seen = x[part] if weights is None else x[part][w > 0]
        if len(seen):
            extremes = np.maximum(extremes, np.concatenate([seen.max(axis=0), -seen.min(axis=0)]))
        sums[:d] += w @ np.subtract(x[part], first, dtype=np.float64)
        sums[d] += w.sum()
    # The sums are taken from each process's own first row; they are put on one origin before they are added.
    sums[:d] += sums[d] * first
    total = add(sums)
    extremes = largest(extremes)
    centre = total[:d] / total[d]
    high, low = extremes[:d], -extremes[d:]
    squares = np.zeros(2 * d)
    for part in row_chunks(len(x), d):
        away = np.subtract(x[part], centre, dtype=np.float64)
        w = np.ones(len(away)) if weights is None else weights[part]
        squares[:d] += w @ np.square(away)
        squares[d:] += w @ away
    squares = add(squares)
    shift = squares[d:] / total[d]
    variance = np.maximum(squares[:d] / total[d] - np.square(shift), 0.0)
    constant = (high <= low) | ~(variance > _MIN_DEVIATION**2)
    centre = np.where(constant, low + (high - low) / 2, centre + shift)
    size = np.where(np.abs(centre) > _MIN_DEVIATION, np.abs(centre), 1.0)
    return Scaling(
        centre=centre,
        scale=np.where(constant, size, np.sqrt(variance)),
        max_abs_deviation=np.where(constant, size, np.maximum(high - centre, centre - low)),
    )
