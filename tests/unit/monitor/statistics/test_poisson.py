"""The interval of a Poisson count."""

import pytest

from monitor.statistics.poisson import poisson_interval


@pytest.mark.parametrize(("count", "low", "high"), [(0, 0.0, 3.689), (2, 0.2422, 7.2247), (10, 4.7954, 18.390)])
def test_the_interval_of_a_count_is_that_of_garwood(count: int, low: float, high: float) -> None:
    assert poisson_interval(count) == pytest.approx((low, high), abs=2e-3)
