"""Detectors: the error of one that is used before it is fitted."""

import sys
from functools import cache

from config.errors import ModelError


class NotFittedError(ModelError, AttributeError):
    """The detector has no parameters yet: call its fit, or load a fitted one."""


def make_not_fitted_error(owner: str, then: str = "call fit(x) or load one first") -> NotFittedError:
    """Return the error to raise; whoever has imported scikit-learn can catch it by its NotFittedError too."""
    exceptions = sys.modules.get("sklearn.exceptions")
    theirs = getattr(exceptions, "NotFittedError", None)
    kind = NotFittedError if theirs is None else _combined_error_type(theirs)
    return kind(f"this {owner} is not fitted yet; {then}")


@cache
def _combined_error_type(theirs: type[Exception]) -> type[NotFittedError]:
    return type(NotFittedError.__name__, (NotFittedError, theirs), {"__doc__": NotFittedError.__doc__})
