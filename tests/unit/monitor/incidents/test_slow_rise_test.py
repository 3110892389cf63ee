"""Slow rises: few false alarms on a clean stream, fast detection of a raised rate, and its onset."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from monitor.incidents.slow_rise_test import (
    RECOVERY_THRESHOLD,
    SlowRiseStatistic,
    SlowRiseVerdict,
    expected_windows_to_detection,
    update_recovery,
    update_slow_rise,
    windows_between_false_alarms,
)
from monitor.statistics.counts import CountModel, highest_clean_rate, rate_bound

MINUTE = 60_000_000
HOUR = 60 * MINUTE


def make_count_model(**changes: object) -> CountModel:
    values = {"rate": 1e-3, "calibration_n": 10**7, "dispersion": 1.0, "windows": 1000, "state": "learned"}
    return CountModel(**(values | changes))  # type: ignore[arg-type]


def run(counts: np.ndarray, dispersion: float = 1.0, threshold_windows: float = 500.0) -> list[SlowRiseVerdict]:
    state, verdicts = SlowRiseStatistic(), []
    for i, x in enumerate(counts.tolist()):
        state, verdict = update_slow_rise(
            state,
            make_count_model(dispersion=dispersion),
            3000,
            x,
            window_start_us=i * MINUTE,
            threshold_windows=threshold_windows,
            clean_rate=1e-3,
        )
        verdicts.append(verdict)
    return verdicts


@pytest.mark.parametrize("dispersion", [1.0, 1.0 + 1e-9, 1.5, 4.0])
def test_mean_likelihood_ratio_of_a_clean_window_is_one(dispersion: float) -> None:
    mean = 3.0
    x = np.arange(4000)
    excess = dispersion - 1
    truth = stats.nbinom(mean / excess, 1 / dispersion) if excess > 1e-6 else stats.poisson(mean)
    gain = np.array([run(np.array([i]), dispersion)[0].log_statistic for i in x[:400]])
    assert float((truth.pmf(x[:400]) * np.exp(gain)).sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.slow
def test_false_alarms_on_a_clean_stream_stay_within_the_budget() -> None:
    counts = np.random.default_rng(1).poisson(3, 50_000)
    alarms = sum(verdict.fires for verdict in run(counts))
    assert 1 <= alarms <= 50_000 / 500


@pytest.mark.slow
def test_false_alarms_on_clustered_counts_stay_within_the_budget() -> None:
    counts = stats.nbinom(3 / 3, 1 / 4).rvs(50_000, random_state=2)
    assert 1 <= sum(verdict.fires for verdict in run(counts, dispersion=4)) <= 100
    assert sum(verdict.fires for verdict in run(counts, dispersion=1)) > 200


def test_doubled_rate_is_found_within_a_few_windows_with_its_onset() -> None:
    rng = np.random.default_rng(3)
    delays, onsets = [], []
    for _ in range(50):
        verdicts = run(np.concatenate([rng.poisson(3, 200), rng.poisson(6, 200)]), threshold_windows=20_000)
        first = next(i for i, verdict in enumerate(verdicts) if verdict.fires)
        delays.append(first - 200)
        onsets.append((verdicts[first].onset_us or 0) // MINUTE - 200)
    assert 5 < np.median(delays) < 20
    assert abs(np.median(onsets)) <= 2


def test_alarm_resets_the_evidence() -> None:
    verdicts = run(np.array([60, 0, 0, 3]))
    assert [verdict.fires for verdict in verdicts] == [True, False, False, False]
    assert verdicts[1].log_statistic < 0


def test_window_without_events_only_counts_as_a_window() -> None:
    state = SlowRiseStatistic(evidence=2.0, best=1.5, onset_us=7)
    after, _ = update_slow_rise(
        state, make_count_model(), 0, 0, window_start_us=9, threshold_windows=100, clean_rate=1e-3
    )
    assert after.evidence == pytest.approx(np.log1p(np.exp(2.0)))
    assert (after.best, after.onset_us) == (1.5, 7)


def test_state_can_be_stored_as_json() -> None:
    state, _ = update_slow_rise(
        SlowRiseStatistic(), make_count_model(), 3000, 5, window_start_us=0, threshold_windows=100, clean_rate=1e-3
    )
    assert SlowRiseStatistic(**json.loads(json.dumps(asdict(state), allow_nan=False))) == state
    assert (
        SlowRiseStatistic(**json.loads(json.dumps(asdict(SlowRiseStatistic()), allow_nan=False))) == SlowRiseStatistic()
    )


def test_quarter_of_one_alarm_a_week_is_four_weeks_of_windows() -> None:
    assert windows_between_false_alarms(1, MINUTE) == 4 * 7 * 24 * 60


@pytest.mark.parametrize(
    ("per_week", "window_us", "share"), [(0, MINUTE, 1), (1, 0, 1), (1, MINUTE, 0), (1, MINUTE, 2)]
)
def test_empty_false_alarm_budget_is_rejected(per_week: float, window_us: int, share: float) -> None:
    with pytest.raises(ValueError, match="must be positive and share in"):
        windows_between_false_alarms(per_week, window_us, share=share)


@pytest.mark.parametrize("ratio", [1.5, 2.0, 3.0])
def test_detection_time_is_near_the_expected_one(ratio: float) -> None:
    expected = expected_windows_to_detection(
        make_count_model(), 3000, clean_rate=1e-3, threshold_windows=4032, ratio=ratio
    )
    rng, delays = np.random.default_rng(6), []
    for _ in range(40):
        verdicts = run(rng.poisson(3 * ratio, 400), threshold_windows=4032)
        delays.append(next(i for i, verdict in enumerate(verdicts) if verdict.fires) + 1)
    assert expected / 2 < np.median(delays) < 1.5 * expected


def test_clean_rate_is_never_found() -> None:
    assert expected_windows_to_detection(
        make_count_model(), 3000, clean_rate=1e-3, threshold_windows=4032, ratio=1.0
    ) == float("inf")
    assert expected_windows_to_detection(
        make_count_model(), 3000, clean_rate=3e-3, threshold_windows=4032, ratio=2.0
    ) == float("inf")


def test_recovery_takes_clean_windows_only() -> None:
    rng = np.random.default_rng(7)
    recovered = 0.0
    for x in rng.poisson(6, 500).tolist():
        recovered = update_recovery(recovered, make_count_model(), 3000, x, clean_rate=1e-3)
        assert 0 <= recovered < RECOVERY_THRESHOLD
    windows = 0
    while recovered < RECOVERY_THRESHOLD:
        recovered = update_recovery(recovered, make_count_model(), 3000, int(rng.poisson(3)), clean_rate=1e-3)
        windows += 1
    assert 3 < windows < 50


def test_clean_rate_includes_the_calibration_error() -> None:
    count_model = make_count_model(rate=0.005, calibration_n=20_000)
    none = np.empty(0, np.int64)
    assert highest_clean_rate(count_model, none, none, none) == rate_bound(count_model, 0.9) > 0.005


def test_clean_rate_is_that_of_the_busiest_hour() -> None:
    starts = np.arange(24 * 60) * MINUTE
    hour = starts // HOUR
    outliers = np.where(hour == 14, 15, 6)
    count_model = make_count_model(rate=float(outliers.mean() / 1000))
    assert highest_clean_rate(count_model, starts, outliers, np.full(1440, 1000)) == pytest.approx(0.015, rel=0.05)


def test_random_variation_between_hours_hardly_raises_the_clean_rate() -> None:
    starts = np.arange(24 * 60) * MINUTE
    outliers = np.random.default_rng(4).poisson(1, 1440)
    count_model = make_count_model(rate=float(outliers.mean() / 1000), calibration_n=1_440_000)
    hourly = outliers.reshape(24, 60).sum(axis=1)
    assert hourly.max() / hourly.mean() > 1.2
    rate = highest_clean_rate(count_model, starts, outliers, np.full(1440, 1000))
    assert rate_bound(count_model, 0.9) <= rate < 1.1 * rate_bound(count_model, 0.9)


def test_hour_with_few_events_hardly_raises_the_clean_rate() -> None:
    starts = np.arange(120) * MINUTE
    events = np.where(starts < HOUR, 1000, 1)
    outliers = np.where(starts < HOUR, 1, 0)
    outliers[119] = 1
    count_model = make_count_model(rate=float(outliers.sum() / events.sum()), calibration_n=int(events.sum()))
    assert highest_clean_rate(count_model, starts, outliers, events) < 2 * rate_bound(count_model, 0.9)
