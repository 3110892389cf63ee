"""Detectors: reference energies, of events that the model did not see."""

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
    """Return the energy of every event under a model fitted without its fold, sorted.

    The folds are contiguous: neighbours in time are alike, and a random fold would have seen nearly every
    event's twin. Scored this way, a limit taken from the energies holds for events to come.

    Args:
        make_detector: Gives a detector with the settings and seed of the one that is to be calibrated.
        x: The training events in their order.
        folds: Into how many pieces they are cut.

    Raises:
        ModelError: fewer events than folds, or a fold's rest is too small to fit on.
    """
    if folds < 2 or len(x) < folds:
        raise ModelError(
            f"reference energies by {folds} folds want at least {max(folds, 2)} events and 2 folds; got {len(x)} events"
        )
    edges = np.linspace(0, len(x), folds + 1).astype(int)
    energies = np.empty(len(x), dtype=np.float32)
    for begin, end in pairwise(edges):
        detector = make_detector().fit(np.concatenate([x[:begin], x[end:]]))
        energies[begin:end] = detector.energy(x[begin:end])
    energies.sort()
    return energies
