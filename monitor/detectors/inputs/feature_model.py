"""Detectors: the user's own model from raw inputs to features."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from config.errors import ModelError


def check_feature_model(owner: str, model: object) -> None:
    """Refuse a feature model that cannot be called."""
    if model is not None and not callable(model):
        raise ModelError(f"{owner}: model must be a function from a batch to features, not {model!r}")


def apply_feature_model(owner: str, model: Callable[[Any], Any] | None, batch: Any) -> Any:
    """Return what the model makes of a batch, a torch module in evaluation mode; the batch without a model.

    Raises:
        ModelError: The model does not accept the batch.
    """
    if model is None:
        return batch
    try:
        return _evaluate_module(model, batch) if isinstance(model, torch.nn.Module) else model(batch)
    except (RuntimeError, TypeError, ValueError, IndexError) as reason:
        first = next(iter(str(reason).splitlines()), type(reason).__name__)
        raise ModelError(f"{owner}: the feature model does not accept the events: {first}") from reason


def _evaluate_module(module: torch.nn.Module, batch: Any) -> Any:
    like = next(module.parameters(), None)
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            given = batch if isinstance(batch, torch.Tensor) else torch.as_tensor(np.asarray(batch))
            if like is not None:
                given = given.to(like if given.is_floating_point() else like.device)
            return module(given)
    finally:
        module.train(was_training)
