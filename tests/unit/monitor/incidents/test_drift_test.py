"""The drift test: false alarms on stationary streams, the drifted statistics, and missing verdicts."""

import numpy as np
import pytest
from scipy import signal, stats

from monitor.incidents.drift_test import (
    baseline_problem,
    earliest_verdict_us,
    fit_baseline,
    horizon_false_alarm_probability,
    judge_drift,
    recommend_action,
)
from monitor.statistics.training_profile import RANK_UNIT, SPREAD_UNIT

MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
J = 12
UNITS = np.ones(J)


def waves(rng: np.random.Generator, blocks: int, rho: float) -> np.ndarray:
    noise = rng.standard_normal((blocks + 100, J))
    return np.asarray(signal.lfilter([1], [1, -rho], noise, axis=0)[100:])


def false_alarms(rho: float, baseline_blocks: int, draws: int, alpha: float) -> int:
    rng = np.random.default_rng([int(rho * 10), baseline_blocks])
    found = 0
    for _ in range(draws):
        x = waves(rng, baseline_blocks + 20, rho)
        baseline = fit_baseline(x[:baseline_blocks], np.full(baseline_blocks, 100), UNITS)
        verdict = judge_drift(baseline, x[-1], 100, UNITS, alpha=alpha, min_effect=0)
        assert verdict is not None
        found += bool(verdict.drifted)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("rho", [0.0, 0.5])
@pytest.mark.parametrize("baseline_blocks", [30, 100])
def test_false_alarms_on_a_stationary_stream_stay_near_the_budget(rho: float, baseline_blocks: int) -> None:
    found = false_alarms(rho, baseline_blocks, draws=1500, alpha=0.02)
    budget = 1500 * 0.02
    assert budget / 4 <= found <= stats.poisson(2 * budget).ppf(0.99)


def test_slow_waves_cause_few_false_alarms() -> None:
    assert false_alarms(0.9, 100, draws=500, alpha=0.02) <= stats.poisson(2 * 500 * 0.02).ppf(0.99)


def test_baseline_estimates_autocorrelation_and_effective_size() -> None:
    baseline = fit_baseline(waves(np.random.default_rng(1), 400, 0.5), np.full(400, 100), UNITS)
    assert baseline.rho == pytest.approx(0.5, abs=0.05)
    assert baseline.effective == pytest.approx(400 / 3, rel=0.15)
    assert baseline.dof == pytest.approx(400 * 0.75 / 1.25, rel=0.1)


def make_baseline(blocks: int = 100) -> tuple:
    x = np.random.default_rng(2).standard_normal((blocks, J)) * 0.1
    return fit_baseline(x, np.full(blocks, 100), UNITS), x


def test_drifted_statistics_are_ordered_by_distance() -> None:
    baseline, _ = make_baseline()
    current = np.zeros(J)
    current[[3, 7, 9]] = 1.0, -2.0, 0.05
    verdict = judge_drift(baseline, current, 100, UNITS, alpha=1e-4, min_effect=0.1)
    assert verdict is not None
    assert verdict.drifted == (7, 3)
    assert verdict.effect[7] == pytest.approx(-2, abs=0.05)


def test_change_below_min_effect_is_no_drift() -> None:
    baseline, _ = make_baseline()
    current = baseline.mean + 0.9
    for min_effect, drifted in ((0.8, J), (1.0, 0)):
        verdict = judge_drift(baseline, current, 100, UNITS, alpha=1e-4, min_effect=min_effect)
        assert verdict is not None
        assert len(verdict.drifted) == drifted


def test_horizon_with_few_events_has_no_verdict() -> None:
    baseline, _ = make_baseline()
    assert judge_drift(baseline, np.full(J, 9.0), 49, UNITS, alpha=1e-4, min_effect=0) is None


def test_constant_statistic_drifts_only_when_it_changes() -> None:
    x = np.random.default_rng(3).standard_normal((50, J))
    x[:, 4] = 0.5
    baseline = fit_baseline(x, np.full(50, 100), UNITS)
    current = baseline.mean.copy()
    verdict = judge_drift(baseline, current, 100, UNITS, alpha=1e-4, min_effect=0)
    assert verdict is not None
    assert verdict.drifted == ()
    current[4] = 0.9
    verdict = judge_drift(baseline, current, 100, UNITS, alpha=1e-4, min_effect=0.1)
    assert verdict is not None
    assert verdict.drifted == (4,)
    assert np.isfinite(verdict.z).all()


def test_constant_statistics_have_a_finite_baseline() -> None:
    baseline = fit_baseline(np.ones((30, J)), np.full(30, 100), UNITS)
    assert baseline.rho == 0
    assert np.isfinite(baseline.deviation).all()


def test_baseline_of_few_horizons_is_rejected() -> None:
    with pytest.raises(ValueError, match="ten horizons"):
        fit_baseline(np.ones((9, J)), np.full(9, 100), UNITS)


def test_budget_is_shared_by_the_horizons() -> None:
    assert horizon_false_alarm_probability(1, 10 * MINUTE, horizons=1, share=1) == pytest.approx(1 / 1008)
    assert horizon_false_alarm_probability(1, 10 * MINUTE, horizons=3) == pytest.approx(1 / 1008 / 12)


@pytest.mark.parametrize(("per_week", "horizon_us", "horizons", "share"), [(0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 0, 1)])
def test_empty_drift_budget_is_rejected(per_week: float, horizon_us: int, horizons: int, share: float) -> None:
    with pytest.raises(ValueError, match="must be positive and share in"):
        horizon_false_alarm_probability(per_week, horizon_us, horizons=horizons, share=share)


@pytest.mark.parametrize(("horizon_us", "first_us"), [(10 * MINUTE, DAY), (HOUR, 30 * HOUR)])
def test_first_verdict_is_possible_once_a_baseline_can_be_complete(horizon_us: int, first_us: int) -> None:
    assert earliest_verdict_us(horizon_us) == first_us
    blocks = first_us // horizon_us
    assert baseline_problem(np.arange(blocks) * horizon_us, horizon_us=horizon_us) is None
    assert baseline_problem(np.arange(blocks - 1) * horizon_us, horizon_us=horizon_us) is not None


def test_first_verdict_of_days_and_weeks_is_that_of_the_tenth() -> None:
    assert [earliest_verdict_us(length) for length in (DAY, 7 * DAY)] == [10 * DAY, 70 * DAY]


@pytest.mark.parametrize(
    ("horizon_us", "blocks", "reason"),
    [
        (10 * MINUTE, 0, "spans 0.0 of the 24 hours"),
        (10 * MINUTE, 143, "spans 23.8 of the 24 hours"),
        (10 * MINUTE, 144, None),
        (HOUR, 24, "24 of the 30 horizons"),
        (HOUR, 30, None),
        (DAY, 29, "29 of the 30 horizons"),
        (DAY, 30, None),
    ],
)
def test_baseline_needs_a_day_and_thirty_horizons(horizon_us: int, blocks: int, reason: str | None) -> None:
    found = baseline_problem(np.arange(blocks) * horizon_us, horizon_us=horizon_us)
    assert found == reason or (reason is not None and found is not None and reason in found)


def test_units_are_the_deviations_of_uniform_ranks() -> None:
    u = np.linspace(0, 1, 100_001)
    assert u.std() == pytest.approx(RANK_UNIT, rel=1e-4)
    assert ((u - 0.5) ** 2).std() == pytest.approx(SPREAD_UNIT, rel=1e-4)


def test_moved_body_needs_a_refit_and_heavy_tail_does_not() -> None:
    assert recommend_action(7.0, 4.0, tail_fires=True) == "drift: refit"
    assert recommend_action(-7.0, 4.0, tail_fires=False) == "drift: refit"
    assert recommend_action(1.0, 4.0, tail_fires=True) == "spike: keep the threshold"
    assert recommend_action(1.0, 4.0, tail_fires=False) is None
