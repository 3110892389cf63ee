"""The law of the largest energies of a habitual key, from its own windows. Pure functions.

A habitual key has energies that are large in the stream and usual for the key. Its next energy is therefore compared
with those of its own windows. Of each window with events of the key, the largest energy is recorded:

    s            = sqrt(energy - median)                      median: of the reference energies of the stream
    kept         the `MAX_ROOTS` largest s, of `measured` windows
    peaks        = 30% of the windows, at least 5 and at most 15;  level = the next s,  y = s - level
    P(max > s)   = peaks / measured x posterior mean of P(Y > y)      as in `monitor.thresholds.tail_law`

A window has a part of its false-alarm probability for all habitual keys together, `KEYS_SHARE`, and each of the H keys
with a law the same: a key fires at P(max > s) <= share alpha / H. Its part of the events, n_k / n, would be so small on
busy streams that nothing could be beyond a law of 30 windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, sqrt

import numpy as np

from monitor.thresholds.tail_law import TailLaw, predict_survival

MAX_ROOTS = 16
"""The number of largest energies that are kept of a key."""

MIN_MEASURED = 30
"""The number of windows of a key from which its own law holds. Before, the limit of the stream holds for it too."""

KEYS_SHARE = 0.1
"""The part of the false-alarm probability of a window for its habitual keys; the events of other keys have the rest."""

_PEAK_SHARE = 0.3
_MIN_PEAKS = 5
_DECIMALS = 4
_LOG_DECIMALS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyMagnitude:
    """The largest energy of a habitual key in a window, with the energies of its windows before.

    `share` is its part of the false-alarm probability of the window. The other attributes are those of `fit_key_law`.
    """

    key: str
    energy: float
    share: float
    roots: tuple[float, ...]
    measured: float
    median: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergiesUnderTest:
    """The largest energies of a window that are tested: of habitual keys with an own law, and of all other events.

    `others_share` is the part of the false-alarm probability that the other events are tested with.
    """

    others: float | None
    habitual: tuple[KeyMagnitude, ...] = ()
    others_share: float = 1.0


def add_root(roots: Sequence[float], energy: float | None, median: float) -> tuple[float, ...]:
    """Return the largest roots after a window with the largest energy of a key; None without an outlier of it."""
    if energy is None:
        return tuple(roots)
    root = round(sqrt(max(energy - median, 0.0)), _DECIMALS)
    return tuple(sorted((*roots, root), reverse=True)[:MAX_ROOTS])


def halve_roots(roots: Sequence[float]) -> tuple[float, ...]:
    """Return the largest roots of half of the windows: every second one, so that one extreme does not stay for ever."""
    return tuple(roots[1::2])


def count_peaks(roots: Sequence[float], measured: float) -> int:
    """Return the number of peaks of the law of a key; 0 if it has none, with too few windows or outliers."""
    k = min(max(int(_PEAK_SHARE * measured), _MIN_PEAKS), len(roots) - 1)
    return 0 if measured < MIN_MEASURED or k < _MIN_PEAKS else k


def fit_key_law(roots: Sequence[float], measured: float, median: float) -> TailLaw:
    """Return the law of the largest energy of a window of a key.

    Args:
        roots: The largest roots of its windows, descending.
        measured: The number of windows that they are the largest of.
        median: The energy in nats from which distances are measured.

    Raises:
        ValueError: The key has too few windows or outliers for a law.
    """
    k = count_peaks(roots, measured)
    if not k:
        raise ValueError(f"a key with {len(roots)} outliers in {measured:g} windows has no law of its own")
    level = roots[k]
    excesses = np.array(roots[:k]) - level
    unit = max(fsum(excesses.tolist()) / k, float(np.finfo(np.float32).eps) * max(level, 1.0))
    survival = predict_survival(excesses / unit, np.ones(k), 1.0)
    log_survival = np.minimum.accumulate(np.round(np.log(k / measured * survival), _LOG_DECIMALS))
    return TailLaw(
        n=measured, peaks=k, median=median, level=level, unit=unit, log_survival=tuple(log_survival.tolist())
    )
