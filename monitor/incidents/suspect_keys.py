"""Suspect keys: keys of a window with more outliers than the other keys. Pure functions.

The count of each key is tested against a binomial with the rate of the rest of the window, or with the clean rate of
the stream where that is higher. A single anomalous key is therefore found, and a rise of all keys makes none suspect.
There are many keys and their counts depend on one another: the procedure of Benjamini and Yekutieli (2001) over all
keys of the window bounds the false discovery rate under any dependence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

FALSE_DISCOVERY_RATE = 0.05
"""Expected share of false positives among the suspect keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectKey:
    """A key with significantly many outliers. `ratio` is its rate divided by the rate of the other keys."""

    key: str
    events: int
    outliers: int
    ratio: float
    p_value: float


def find_suspect_keys(
    keys: Sequence[tuple[str, int, int]],
    *,
    distinct: int,
    events: int,
    outliers: int,
    clean_rate: float,
    level: float = FALSE_DISCOVERY_RATE,
) -> list[SuspectKey]:
    """Return the suspect keys, the smallest p-value first.

    Args:
        keys: Key, events and outliers of the keys with the most outliers.
        distinct: Number of distinct keys in the window, all of which count as tested.
        events: Events of the window.
        outliers: Outliers of the window.
        clean_rate: Clean rate of outliers in the stream.
        level: False discovery rate.
    """
    suspects = [_test_key(key, n, x, events, outliers, clean_rate) for key, n, x in keys if n >= x > 0]
    suspects.sort(key=lambda suspect: (suspect.p_value, suspect.key))
    n_tests = max(distinct, len(suspects))
    harmonic = float((1 / np.arange(1, n_tests + 1)).sum())
    significant = [i for i, suspect in enumerate(suspects) if suspect.p_value <= level * (i + 1) / (n_tests * harmonic)]
    return suspects[: significant[-1] + 1] if significant else []


def _test_key(key: str, n: int, x: int, events: int, outliers: int, clean_rate: float) -> SuspectKey:
    rest_n, rest_x = max(events - n, 0), max(outliers - x, 0)
    rate = max(clean_rate, rest_x / rest_n if rest_n else 0.0)
    # P(X >= x) of a binomial, as an incomplete beta function.
    p_value = 1.0 if rate >= 1 else float(special.betainc(x, n - x + 1, rate))
    return SuspectKey(key=key, events=n, outliers=x, ratio=x / n / rate, p_value=p_value)
