"""Standardisation of columns, so that a fit does not depend on their units."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from monitor.detectors.inputs.checks import FloatArray

F64 = NDArray[np.float64]
_CHUNK_BYTES = 4 << 20
_MIN_DEVIATION = 1e-140  # squares of smaller numbers underflow in float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Centres and scales of columns; the standardised value is (x - centre) / scale in float64.

    Attributes:
        centre: The means of the columns, (D,).
        scale: Their standard deviations, (D,).
        max_abs_deviation: The largest distance of a value from the centre, (D,). In a nearly constant column it
            describes the scale of the values better than the standard deviation. Empty if it was not computed.
    """

    centre: F64
    scale: F64
    max_abs_deviation: F64 = field(default_factory=lambda: np.zeros(0))

    def with_common_scale(self) -> "Scaling":
        """Return the scaling with one scale for all columns: the root of their mean variance."""
        return replace(self, scale=np.full_like(self.scale, np.sqrt(np.mean(self.scale**2))))

    def standardise(self, x: FloatArray) -> F64:
        """Return the standardised rows, (n, D)."""
        z = np.subtract(x, self.centre, dtype=np.float64)
        z /= self.scale
        return z


def row_chunks(n: int, width: int) -> list[slice]:
    """Return slices that cover n rows of `width` float64 numbers in chunks of about 4 MiB."""
    step = max(256, _CHUNK_BYTES // (8 * max(width, 1)))
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def fit_column_scaling(
    x: FloatArray,
    weights: F64 | None,
    sum_array: Callable[[F64], F64],
    max_array: Callable[[F64], F64],
) -> Scaling:
    """Return the weighted means and standard deviations of the columns, computed in two passes for accuracy.

    The standard deviation of a constant column is zero. Its scale is the absolute value of the constant instead, or 1
    if that is zero, so that a later change is anomalous in proportion to the constant.

    Args:
        x: The events of this process, (n, D).
        weights: One weight per event, (n,), or None for weight one.
        sum_array: Returns the sum of an array over all processes.
        max_array: Returns the elementwise maximum over all processes.
    """
    d = x.shape[1]
    origin = x[0].astype(np.float64) if len(x) else np.zeros(d)
    sums = np.zeros(d + 1)
    extremes = np.full(2 * d, -np.inf)
    for part in row_chunks(len(x), d):
        w = np.ones(part.stop - part.start) if weights is None else weights[part]
        present = x[part] if weights is None else x[part][w > 0]
        if len(present):
            extremes = np.maximum(extremes, np.concatenate([present.max(axis=0), -present.min(axis=0)]))
        sums[:d] += w @ np.subtract(x[part], origin, dtype=np.float64)
        sums[d] += w.sum()
    # Each process subtracted its own first row; its sums are moved to a common origin before they are added.
    sums[:d] += sums[d] * origin
    total = sum_array(sums)
    extremes = max_array(extremes)
    centre = total[:d] / total[d]
    high, low = extremes[:d], -extremes[d:]
    squares = np.zeros(2 * d)
    for part in row_chunks(len(x), d):
        deviation = np.subtract(x[part], centre, dtype=np.float64)
        w = np.ones(len(deviation)) if weights is None else weights[part]
        squares[:d] += w @ np.square(deviation)
        squares[d:] += w @ deviation
    squares = sum_array(squares)
    shift = squares[d:] / total[d]
    variance = np.maximum(squares[:d] / total[d] - np.square(shift), 0.0)
    constant = (high <= low) | ~(variance > _MIN_DEVIATION**2)
    centre = np.where(constant, low + (high - low) / 2, centre + shift)
    constant_scale = np.where(np.abs(centre) > _MIN_DEVIATION, np.abs(centre), 1.0)
    return Scaling(
        centre=centre,
        scale=np.where(constant, constant_scale, np.sqrt(variance)),
        max_abs_deviation=np.where(constant, constant_scale, np.maximum(high - centre, centre - low)),
    )
