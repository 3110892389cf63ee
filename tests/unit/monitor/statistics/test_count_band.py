import numpy as np
import pytest

from monitor.statistics.count_band import count_quantile
from monitor.statistics.counts import CountModel, exceedance_probability

MODEL = CountModel(rate=0.005, calibration_n=100_000, dispersion=2.5, windows=300, state="learned")
POISSON = CountModel(rate=0.005, calibration_n=10**15, dispersion=1.0, windows=300, state="learned")


@pytest.mark.parametrize("model", [MODEL, POISSON])
@pytest.mark.parametrize("level", [0.05, 0.5, 0.95, 0.999])
def test_the_quantile_is_the_smallest_count_that_is_not_exceeded_with_its_probability(model, level):
    events = np.array([1, 40, 600, 5_000, 200_000])
    means, ratios = events * model.rate, np.array([model.variance_ratio(int(n)) for n in events])
    for n, count in zip(events, count_quantile(means, ratios, level), strict=True):
        assert exceedance_probability(model, int(n), int(count)) <= 1 - level + 1e-12
        assert exceedance_probability(model, int(n), int(count) - 1) > 1 - level - 1e-12


def test_a_window_without_expected_outliers_has_a_band_of_zero():
    assert count_quantile(np.array([0.0]), np.array([1.0]), 0.95).tolist() == [0]
    assert count_quantile(np.array([]), np.array([]), 0.95).tolist() == []
