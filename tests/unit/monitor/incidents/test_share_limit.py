"""The test that a share of records exceeds its limit: exact binomial probabilities."""

import pytest
from scipy import stats

from monitor.incidents.share_limit import SIGNIFICANCE, exceeds_limit


@pytest.mark.parametrize(
    ("count", "records", "limit", "expected"),
    [
        (3, 55, 0.05, False),  # 5.5% of few records
        (8, 55, 0.05, True),
        (5, 5, 0.05, True),
        (60, 1_000, 0.05, False),
        (80, 1_000, 0.05, True),
        (1, 1_000_000, 0.0, True),
        (10, 10, 1.0, False),
        (50, 1_000, 0.05, False),  # at the limit
    ],
)
def test_share_has_to_exceed_the_limit_significantly(count: int, records: int, limit: float, *, expected: bool) -> None:
    assert exceeds_limit(count, records, limit) is expected


def test_decision_is_that_of_the_binomial_tail() -> None:
    for records in (20, 55, 400):
        for count in range(1, records + 1):
            tail = stats.binom.sf(count - 1, records, 0.05)
            assert exceeds_limit(count, records, 0.05) == (count > 0.05 * records and tail <= SIGNIFICANCE)
