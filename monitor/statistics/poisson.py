"""Interval of the mean of a Poisson count. Pure."""

from scipy import special


def poisson_interval(count: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of the mean that a count was drawn with (Garwood 1936)."""
    tail = (1 - level) / 2
    low = float(special.gammaincinv(count, tail)) if count else 0.0
    return low, float(special.gammaincinv(count + 1, 1 - tail))
