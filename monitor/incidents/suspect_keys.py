"""Lift: which keys of a window have more outliers than the others. Pure.

Each key's count is held against a binomial with the rate of the rest of the window (or the stream's clean rate where
that is higher, so that the one key that is strange alone stands out and a rise of all lifts none). Keys are many and
their counts depend on one another: Benjamini and Yekutieli's procedure (2001) over all keys of the window bounds the
false share among those that are named, under any dependence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

FALSE_DISCOVERY_RATE = 0.05
"""Expected share of keys that are named wrongly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspectKey:
    """A key that stands out: its counts, the times its rate is that of the others, and its p-value."""

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
    """Return the keys that stand out, the least probable first.

    Args:
        keys: Key, events and outliers of those with the most outliers.
        distinct: How many keys the window has: all of them were looked at.
        events: Of the window.
        outliers: Of the window.
        clean_rate: Of outliers in the stream.
        level: The share of wrongly named keys to expect.
    """
    lifts = [_test_key(key, n, x, events, outliers, clean_rate) for key, n, x in keys if n >= x > 0]
    lifts.sort(key=lambda lift: (lift.p_value, lift.key))
    tried = max(distinct, len(lifts))
    harmonic = float((1 / np.arange(1, tried + 1)).sum())
    named = [i for i, lift in enumerate(lifts) if lift.p_value <= level * (i + 1) / (tried * harmonic)]
    return lifts[: named[-1] + 1] if named else []


def _test_key(key: str, n: int, x: int, events: int, outliers: int, clean_rate: float) -> SuspectKey:
    rest_n, rest_x = max(events - n, 0), max(outliers - x, 0)
    rate = max(clean_rate, rest_x / rest_n if rest_n else 0.0)
    # P(X >= x) of a binomial, as an incomplete beta function.
    p_value = 1.0 if rate >= 1 else float(special.betainc(x, n - x + 1, rate))
    return SuspectKey(key=key, events=n, outliers=x, ratio=x / n / rate, p_value=p_value)
