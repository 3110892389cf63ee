"""Text of numbers that are shown together: enough digits to tell them apart."""

import math
from collections.abc import Sequence

_MOST_DIGITS = 17
_SPREAD_DIGITS = 3


def format_together(values: Sequence[float], digits: int) -> list[str]:
    """Return numbers of one quantity as text, with at least `digits` significant digits.

    More digits are used where the numbers are large in comparison with their range, which gets three digits:
    1000000100 and 1000000000 instead of 1e+09 twice.
    """
    finite = [value for value in values if math.isfinite(value)]
    spread = max(finite) - min(finite) if finite else 0.0
    if 0 < spread < math.inf:
        largest = max(map(abs, finite))
        wanted = math.floor(math.log10(largest)) - math.floor(math.log10(spread)) + _SPREAD_DIGITS
        digits = min(max(digits, wanted), _MOST_DIGITS)
    return [f"{value:.{digits}g}" for value in values]
