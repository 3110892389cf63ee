"""Detectors: what their arguments may be, and what is said of the rest."""

import math
from numbers import Integral, Real

import torch

from config.errors import ModelError

_MAX_INT = (1 << 63) - 1  # what the libraries take as a seed or a size


def check_int(owner: str, name: str, value: object, least: int) -> int:
    """Return a whole number from `least` on.

    Raises:
        ModelError: it is something else.
    """
    given = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else least - 1
    if not least <= given <= _MAX_INT:
        raise ModelError(f"{owner}: {name} must be a whole number from {least} on, not {value!r}")
    return given


def check_number(owner: str, name: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """Return a finite number from `low` to `high`.

    Raises:
        ModelError: it is something else.
    """
    given = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not math.isfinite(given) or not low <= given <= high:
        reach = [f" from {low:g}" if low > -math.inf else "", f" to {high:g}" if high < math.inf else ""]
        raise ModelError(f"{owner}: {name} must be a finite number{''.join(reach)}, not {value!r}")
    return given


def check_device(owner: str, device: object) -> str:
    """Return the name of a torch device that there is here.

    Raises:
        ModelError: torch knows no such device, or finds none here.
    """
    try:
        place = torch.device(str(device))
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as reason:
        first = str(reason).splitlines()[0]
        raise ModelError(f'{owner}: device {device!r} cannot be used here ({first}); try device="cpu"') from reason
    return str(device)
