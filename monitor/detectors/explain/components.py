"""Names of the components of a mixture for people: the centre in the features that set a component apart. Pure."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

_MAX_NAMED_FEATURES = 3
_MIN_DISTANCE = 0.5
_DIGITS = (3, 5, 9)


def name_components(weights: F64, means: F64, variances: F64, features: Sequence[str]) -> tuple[str, ...]:
    """Return a name for each component, such as "near amount 20, hour 3"; the names are distinct.

    Named are the features in which the centre is farthest from the mean of all events, in deviations of the component:
    at most three, and only the first of those within half a deviation. More features and digits are named where two
    components would have the same name.

    Args:
        weights: The weights, (K,), with sum 1.
        means: The means, (K, D).
        variances: The variances of the features within each component, (K, D).
        features: The D feature names.
    """
    distance = np.abs(means - weights @ means) / np.sqrt(variances)
    orders = np.argsort(-distance, axis=1, kind="stable")
    counts = np.clip((distance >= _MIN_DISTANCE).sum(axis=1), 1, _MAX_NAMED_FEATURES)
    names: list[str] = []
    for k, order in enumerate(orders):
        attempts = [(int(counts[k]), digits) for digits in _DIGITS] + [(len(features), _DIGITS[-1])]
        candidates = [_name_centre(means[k], order[:count], features, digits) for count, digits in attempts]
        distinct = [name for name in candidates if name not in names]
        names.append(distinct[0] if distinct else f"{candidates[-1]} ({k + 1})")
    return tuple(names)


def _name_centre(mean: F64, order: NDArray[np.intp], features: Sequence[str], digits: int) -> str:
    # The second format writes rounded numbers without an exponent where that is short.
    return "near " + ", ".join(f"{features[j]} {float(f'{mean[j]:.{digits}g}'):.9g}" for j in order)
