"""Checks of detector arguments, and the error of a detector that is used before its fit."""

import math
import sys
from functools import cache
from numbers import Integral, Real

import torch

from config.errors import ModelError

_MAX_INT = (1 << 63) - 1  # the largest seed or size that numpy and torch accept


class NotFittedError(ModelError, AttributeError):
    """The detector has no parameters yet: call its fit, or load a fitted one."""


def make_not_fitted_error(owner: str, then: str = "call fit(x) or load one first") -> NotFittedError:
    """Return the error to raise; if scikit-learn is imported, it is also an instance of its NotFittedError.

    Args:
        owner: The class name of the detector.
        then: The advice at the end of the message.
    """
    exceptions = sys.modules.get("sklearn.exceptions")
    sklearn_error = getattr(exceptions, "NotFittedError", None)
    error_type = NotFittedError if sklearn_error is None else _combined_error_type(sklearn_error)
    return error_type(f"this {owner} is not fitted yet; {then}")


@cache
def _combined_error_type(sklearn_error: type[Exception]) -> type[NotFittedError]:
    return type(NotFittedError.__name__, (NotFittedError, sklearn_error), {"__doc__": NotFittedError.__doc__})


def check_int(owner: str, name: str, value: object, least: int) -> int:
    """Return `value` as an int of at least `least`.

    Args:
        owner: The class or function that takes the argument, for the message.
        name: The argument's name.
        value: The argument.
        least: The smallest valid value.

    Raises:
        ModelError: The value is not a whole number in the range.
    """
    number = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else least - 1
    if not least <= number <= _MAX_INT:
        raise ModelError(f"{owner}: {name} must be a whole number of at least {least}, not {value!r}")
    return number


def check_number(owner: str, name: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """Return `value` as a finite float in [low, high].

    Raises:
        ModelError: The value is not a finite number in the range.
    """
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not math.isfinite(number) or not low <= number <= high:
        bounds = [f" from {low:g}" if low > -math.inf else "", f" to {high:g}" if high < math.inf else ""]
        raise ModelError(f"{owner}: {name} must be a finite number{''.join(bounds)}, not {value!r}")
    return number


def check_device(owner: str, device: object) -> str:
    """Return the name of a torch device after allocating on it.

    Raises:
        ModelError: The name is invalid, or this machine has no such device.
    """
    try:
        torch_device = torch.device(str(device))
        torch.empty(0, device=torch_device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first_line = str(error).splitlines()[0]
        raise ModelError(f'{owner}: device {device!r} cannot be used here ({first_line}); try device="cpu"') from error
    return str(device)
