"""Feature model of the user: a function from raw inputs to features."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from config.errors import ModelError


def check_feature_model(owner: str, model: object) -> None:
    """Check that a feature model is callable.

    Raises:
        ModelError: It is not.
    """
    if model is not None and not callable(model):
        raise ModelError(f"{owner}: model must be a function from a batch to features, not {model!r}")


def apply_feature_model(owner: str, model: Callable[[Any], Any] | None, batch: Any) -> Any:
    """Apply the feature model to a batch; without a model return the batch.

    A torch module runs in evaluation mode, on the device of its parameters, without gradients.

    Raises:
        ModelError: The model does not accept the batch.
    """
    if model is None:
        return batch
    try:
        return _evaluate_module(model, batch) if isinstance(model, torch.nn.Module) else model(batch)
    except (RuntimeError, TypeError, ValueError, IndexError) as reason:
        first_line = next(iter(str(reason).splitlines()), type(reason).__name__)
        raise ModelError(f"{owner}: the feature model does not accept the events: {first_line}") from reason


def _evaluate_module(module: torch.nn.Module, batch: Any) -> Any:
    parameter = next(module.parameters(), None)
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            inputs = batch if isinstance(batch, torch.Tensor) else torch.as_tensor(np.asarray(batch))
            if parameter is not None:
                inputs = inputs.to(parameter if inputs.is_floating_point() else parameter.device)
            return module(inputs)
    finally:
        module.train(was_training)
