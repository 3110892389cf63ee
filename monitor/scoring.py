"""The scoring worker's core: events in, energies out, on one device.

It holds the models that the schedule still needs (the current and the next one) and nothing else.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from config.errors import ConfigError
from monitor.detectors.detector import Detector

_KEPT_MODELS = 3  # the current model, the next one, and the last one for late events


def pick_device(wanted: str) -> str:
    """Return the device to score on: `auto` is CUDA where there is one.

    Raises:
        ConfigError: CUDA is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if wanted == "auto":
        return "cuda" if available else "cpu"
    if wanted == "cuda" and not available:
        raise ConfigError("device: cuda was asked for, but torch finds no CUDA device here; set device: auto or cpu")
    return wanted


class Scorer:
    """Scores events with stored models; owns one device and is used by one thread."""

    def __init__(self, load: Callable[[int], Detector]) -> None:
        self._load = load
        self._models: dict[int, Detector] = {}

    def detector(self, model_id: int) -> Detector:
        """Return the model, loaded at most once while it is in use."""
        model = self._models.pop(model_id, None) or self._load(model_id)
        self._models[model_id] = model
        while len(self._models) > _KEPT_MODELS:
            self._models.pop(next(iter(self._models)))
        return model

    def energies(self, features: NDArray[np.float32], model_id: int) -> NDArray[np.float32]:
        """Return the energy of each event in nats, rounded once to float32.

        A feature that is NaN (`missing: mean`) takes the model's training mean.
        """
        model = self.detector(model_id)
        if not len(features):
            return np.empty(0, np.float32)
        absent = np.isnan(features)
        if absent.any():
            means = np.asarray(model.feature_means_, np.float32)
            features = np.where(absent, means, features)
        return np.asarray(model.energy(features), dtype=np.float32)
