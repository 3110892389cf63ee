"""Spikes: the count model, the count threshold and the texts about them."""

import numpy as np
import pytest
from scipy import stats

from config.budget import false_alarm_probability
from config.time_format import format_rounded_duration
from monitor.incidents.spike import (
    advise_window_size,
    describe_false_alarms,
    judge_count,
    spike_count_threshold,
)
from monitor.statistics.counts import CountModel, fit_count_model, is_rate_suspect, p_value, rate_bound

MINUTE = 60_000_000


def make_count_model(**changes: object) -> CountModel:
    values = {"rate": 1e-3, "calibration_n": 10**7, "dispersion": 1.0, "windows": 1000, "state": "learned"}
    return CountModel(**(values | changes))  # type: ignore[arg-type]


def test_rate_is_pooled_over_the_reference_and_the_windows() -> None:
    count_model = fit_count_model(20, 20_000, np.array([1, 0, 5]), np.array([1000, 0, 3000]))
    assert count_model.rate == 26 / 24_000
    assert (count_model.calibration_n, count_model.windows) == (24_000, 2)


def test_independent_counts_have_a_dispersion_near_one() -> None:
    counts = np.random.default_rng(1).poisson(3, 1000)
    assert 1 <= fit_count_model(0, 0, counts, np.full(1000, 3000)).dispersion < 1.12


def test_significant_dispersion_is_raised_for_its_standard_error() -> None:
    counts = stats.nbinom(1, 0.25).rvs(1000, random_state=2)
    n = np.full(1000, 3000)
    plain = counts.var(ddof=1) / counts.mean()
    assert fit_count_model(0, 0, counts, n).dispersion == pytest.approx(
        plain * (1 + 5 * (2 + plain / counts.mean()) / 1000)
    )


def test_insignificant_dispersion_is_not_raised() -> None:
    counts = np.array([3, 4, 2, 5, 1, 3, 6, 2])
    plain = counts.var(ddof=1) / counts.mean()
    assert fit_count_model(0, 0, counts, np.full(8, 3000)).dispersion == max(1, plain)


@pytest.mark.parametrize(
    ("windows", "alpha", "events", "state"),
    [
        (299, 9e-4, 5000, "provisional"),
        (300, 0.0, 1000, "learned"),
        (99, 1e-3, 1000, "provisional"),
        (100, 1e-3, 1000, "learned"),
        (99, 0.0, 6100, "provisional"),
        (100, 0.0, 6100, "learned"),
    ],
)
def test_count_model_is_learned_from_100_windows_if_its_tail_is_well_determined(
    windows: int, alpha: float, events: int, state: str
) -> None:
    outliers = np.full(windows, events // 1000)
    assert fit_count_model(0, 0, outliers, np.full(windows, events), alpha=alpha).state == state


def test_count_model_without_data_is_rejected() -> None:
    with pytest.raises(ValueError, match="needs reference energies or windows"):
        fit_count_model(0, 0, np.zeros(3, int), np.zeros(3, int))


def test_count_model_without_data_falls_back_to_the_given_one() -> None:
    none = np.empty(0, np.int64)
    assert fit_count_model(0, 0, none, none, otherwise=make_count_model()) == make_count_model()


def test_learning_from_fired_windows_hides_the_next_spike() -> None:
    counts, n = np.random.default_rng(8).poisson(1, 300), np.full(300, 200)
    clean = spike_count_threshold(fit_count_model(0, 0, counts, n), 200, 1e-4).count
    counts[::25] = 190
    assert clean < 10
    assert spike_count_threshold(fit_count_model(0, 0, counts, n), 200, 1e-4).count > 190


def test_rate_without_any_exceedance_is_above_zero() -> None:
    count_model = fit_count_model(0, 0, np.zeros(10, int), np.full(10, 100))
    assert count_model.rate == 0.0005
    assert spike_count_threshold(count_model, 100, 1e-4).count >= 1


def test_count_thresholds_of_a_known_rate_are_binomial() -> None:
    exact = make_count_model(calibration_n=10**12)
    for n, threshold in ((200, 4), (1000, 7), (10_000, 26)):
        assert spike_count_threshold(exact, n, 1.65e-5).count == threshold


def test_calibration_error_raises_the_count_threshold() -> None:
    counts = [
        spike_count_threshold(make_count_model(calibration_n=m), 10_000, 1.65e-5).count
        for m in (10**3, 10**4, 10**5, 10**6)
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 100
    assert counts[-1] == 27 or counts[-1] == 26


def test_tails_are_negative_binomial_with_the_same_mean_and_variance() -> None:
    count_model = make_count_model(calibration_n=10**5, dispersion=2.5)
    ratio = 2.5 * (1 + 4000 / 10**5)
    truth = stats.nbinom(4 / (ratio - 1), 1 / ratio)
    for x in (0, 1, 4, 20, 60):
        assert p_value(count_model, 4000, x) == pytest.approx(truth.sf(x - 1), rel=1e-9)


def test_tails_are_continuous_at_the_poisson_limit() -> None:
    above = make_count_model(calibration_n=10**18, dispersion=1 + 1.1e-6)
    below = make_count_model(calibration_n=10**18, dispersion=1 + 0.9e-6)
    assert p_value(above, 4000, 15) == pytest.approx(p_value(below, 4000, 15), rel=1e-4)
    assert p_value(below, 4000, 15) == pytest.approx(stats.poisson(4).sf(14), rel=1e-9)


@pytest.mark.parametrize("n", [1, 60, 1000, 10**6])
def test_count_threshold_is_the_smallest_count_within_the_budget(n: int) -> None:
    count_model = make_count_model(dispersion=1.7)
    threshold = spike_count_threshold(count_model, n, 1e-5)
    assert threshold.attainable == p_value(count_model, n, threshold.count + 1) <= 1e-5
    assert p_value(count_model, n, threshold.count) > 1e-5


def test_window_without_events_is_no_spike() -> None:
    verdict = judge_count(make_count_model(), 0, 0, alpha=1e-4)
    assert (verdict.fires, verdict.mean, verdict.p_value) == (False, 0, 1)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 2])
def test_alpha_outside_zero_to_one_is_rejected(alpha: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        spike_count_threshold(make_count_model(), 100, alpha)


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (1500, "1.5 milliseconds"),
        (1e6, "1 second"),
        (90e6, "1.5 minutes"),
        (3600e6, "1 hour"),
        (39 * 86_400e6, "39 days"),
        (1000 * 365.25 * 86_400e6, "1,000 years"),
    ],
)
def test_duration_is_formatted_in_its_largest_unit(us: float, text: str) -> None:
    assert format_rounded_duration(us) == text


def test_threshold_out_of_reach_is_described_as_no_false_alarm() -> None:
    text = describe_false_alarms(make_count_model(rate=1e-12), 10, alpha=1e-300, window_us=MINUTE)
    assert text.startswith("more than ")
    assert "no false alarm in practice" in describe_false_alarms(
        make_count_model(rate=1e-30), 1, alpha=1e-320, window_us=MINUTE
    )


def test_window_fires_above_the_threshold_and_not_at_it() -> None:
    threshold = spike_count_threshold(make_count_model(), 6000, 1e-4).count
    assert not judge_count(make_count_model(), 6000, threshold, alpha=1e-4).fires
    verdict = judge_count(make_count_model(), 6000, threshold + 1, alpha=1e-4)
    assert (verdict.fires, verdict.count_threshold, verdict.fires_at) == (True, threshold, threshold + 1)
    assert verdict.p_value <= 1e-4


def test_min_outliers_keeps_a_small_window_from_firing() -> None:
    assert judge_count(make_count_model(), 10, 2, alpha=1e-4).fires
    verdict = judge_count(make_count_model(), 10, 2, alpha=1e-4, min_outliers=5)
    assert (verdict.fires, verdict.fires_at) == (False, 5)
    assert verdict.attainable < 1e-9


def test_min_ratio_keeps_a_large_window_from_firing() -> None:
    assert judge_count(make_count_model(), 10**6, 2000, alpha=1e-4).fires
    verdict = judge_count(make_count_model(), 10**6, 2000, alpha=1e-4, min_ratio=0.01)
    assert (verdict.fires, verdict.fires_at) == (False, 10_000)


def test_budget_is_described_in_counts() -> None:
    text = describe_false_alarms(
        make_count_model(windows=1240), 6000, alpha=false_alarm_probability(1, MINUTE), window_us=MINUTE
    )
    assert text == "more than 18 of 6,000 in a minute; 1 false alarm in 39 days; learned from 1,240 windows"


def test_description_of_a_provisional_model_says_provisional() -> None:
    text = describe_false_alarms(
        make_count_model(windows=12, state="provisional"), 6000, alpha=1e-4, window_us=10 * MINUTE
    )
    assert text.startswith("more than 17 of 6,000 in 10 minutes; 1 false alarm in ")
    assert text.endswith("; provisional: 12 of 100 windows learned")


def test_window_size_advice_below_one_expected_outlier() -> None:
    advice = advise_window_size(make_count_model(), 100, window_us=MINUTE)
    assert advice == (
        "a window has 0.1 outliers on average; "
        "in windows of 10 minutes or more, with one or more on average, smaller spikes are detected"
    )


def test_no_window_size_advice_from_one_expected_outlier_on() -> None:
    assert advise_window_size(make_count_model(), 1000, window_us=MINUTE) is None


def test_rate_bounds_are_the_exact_poisson_bounds() -> None:
    count_model = make_count_model(rate=20 / 20_000, calibration_n=20_000)
    assert stats.poisson(rate_bound(count_model, 0.95) * 20_000).cdf(20) == pytest.approx(0.05)
    assert stats.poisson(rate_bound(count_model, 0.05) * 20_000).sf(19) == pytest.approx(0.05)


def test_rate_far_from_the_nominal_exceedance_is_suspect() -> None:
    assert not is_rate_suspect(make_count_model(rate=2.9e-3), 1e-3)
    assert is_rate_suspect(make_count_model(rate=3.1e-3), 1e-3)
    assert is_rate_suspect(make_count_model(rate=0.3e-3), 1e-3)


def test_rate_is_suspect_once_its_90_percent_interval_leaves_the_range() -> None:
    """Of 329 events the 5% bound is 299.7, of 330 it is 300.7; of 303 the 95% bound is 333.2, of 304 it is 334.3."""
    above = [is_rate_suspect(make_count_model(rate=k / 1e5, calibration_n=10**5), 1e-3) for k in (329, 330)]
    below = [is_rate_suspect(make_count_model(rate=k / 1e6, calibration_n=10**6), 1e-3) for k in (303, 304)]
    assert (above, below) == ([False, True], [True, False])


def test_rate_of_few_events_is_not_suspect() -> None:
    assert not is_rate_suspect(make_count_model(rate=3.5e-3, calibration_n=2000), 1e-3)


def test_chance_variation_of_few_windows_does_not_raise_the_threshold() -> None:
    outliers, events = np.array([0, 1, 6, 5, 0]), np.full(5, 500)
    make_count_model = fit_count_model(50, 10_000, outliers, events)
    assert make_count_model.dispersion < 1.5
    assert spike_count_threshold(make_count_model, 500, 5e-5).count < 20
