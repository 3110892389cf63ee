"""Reference energies: the energies of events under models that were not fitted on them."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from config.errors import ModelError
from monitor.detectors.inputs.checks import FloatArray


class _Fittable(Protocol):
    def fit(self, x: Any, *, sample_weight: Any = ...) -> Any: ...

    def energy(self, x: Any) -> NDArray[np.floating[Any]]: ...


def reference_energies(make_detector: Callable[[], _Fittable], x: FloatArray, folds: int = 5) -> NDArray[np.float32]:
    """Return the sorted out-of-fold energies of the training events, (n,); see `out_of_fold_energies`."""
    return np.sort(out_of_fold_energies(make_detector, x, folds))


def out_of_fold_energies(
    make_detector: Callable[[], _Fittable],
    x: FloatArray,
    folds: int = 5,
    *,
    kept: NDArray[np.bool_] | None = None,
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]:
    """Return the energy of each event under a model fitted without the event's fold, (n,), in the order of the events.

    The folds are contiguous. Consecutive events are correlated, and with random folds nearly every event would have a
    similar event in the training rows. A threshold from these energies is valid for future events.

    Args:
        make_detector: Builds a detector with the settings and the seed of the calibrated detector.
        x: The training events in their order, (n, D).
        folds: The number of folds, of equal numbers of kept events.
        kept: The events to fit on, (n,); by default all of them. The energies of the others are computed too.
        weights: The weight of each event in the fits, (n,); by default equal ones.

    Raises:
        ModelError: There are fewer events than folds, or too few events outside of a fold.
    """
    rows = np.arange(len(x)) if kept is None else np.flatnonzero(kept)
    if folds < 2 or len(rows) < folds:
        raise ModelError(
            f"reference energies need at least 2 folds and {max(folds, 2)} events; got {folds} folds, "
            f"{len(rows)} events"
        )
    edges = np.array([0, *rows[np.linspace(0, len(rows), folds + 1).astype(int)[1:-1]], len(x)])
    energies = np.empty(len(x), dtype=np.float32)
    for start, end in pairwise(edges):
        outside = rows[(rows < start) | (rows >= end)]
        detector = make_detector()
        detector = (
            detector.fit(x[outside]) if weights is None else detector.fit(x[outside], sample_weight=weights[outside])
        )
        energies[start:end] = detector.energy(x[start:end])
    return energies
