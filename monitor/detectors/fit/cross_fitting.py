"""Reference energies: the energies of events under models that were not fitted on them."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from config.errors import ModelError
from monitor.detectors.inputs.checks import FloatArray


class _Fittable(Protocol):
    def fit(self, x: Any) -> Any: ...

    def energy(self, x: Any) -> NDArray[np.floating[Any]]: ...


def reference_energies(make_detector: Callable[[], _Fittable], x: FloatArray, folds: int = 5) -> NDArray[np.float32]:
    """Return the sorted out-of-fold energies of the training events, (n,).

    The folds are contiguous. Consecutive events are correlated, and with random folds nearly every event would have a
    similar event in the training rows. A threshold from these energies is valid for future events.

    Args:
        make_detector: Builds a detector with the settings and the seed of the calibrated detector.
        x: The training events in their order, (n, D).
        folds: The number of folds.

    Raises:
        ModelError: There are fewer events than folds, or too few events outside of a fold.
    """
    if folds < 2 or len(x) < folds:
        raise ModelError(
            f"reference energies need at least 2 folds and {max(folds, 2)} events; got {folds} folds, {len(x)} events"
        )
    edges = np.linspace(0, len(x), folds + 1).astype(int)
    energies = np.empty(len(x), dtype=np.float32)
    for start, end in pairwise(edges):
        detector = make_detector().fit(np.concatenate([x[:start], x[end:]]))
        energies[start:end] = detector.energy(x[start:end])
    energies.sort()
    return energies
