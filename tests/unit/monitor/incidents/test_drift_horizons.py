"""Drift over horizons without a season: baselines, verdicts, and the finding."""

from dataclasses import replace

import numpy as np
import pytest

from monitor.incidents.drift import build_drift_finding, build_verdict_rows
from monitor.incidents.drift_alarms import advance_horizon_alarm
from monitor.incidents.drift_horizons import FrozenBaseline, Horizon, HorizonResult, judge_horizon, learn_baseline
from monitor.incidents.drift_state import DriftAlarm, DriftState
from monitor.incidents.drift_test import DriftBaseline
from monitor.statistics.drift_means import DriftStatistics
from monitor.statistics.training_profile import TrainingProfile, build_feature_profile, quantile_edges

MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
EVENTS = 2_000
RNG = np.random.default_rng(5)
TRAINING = RNG.standard_normal((5_000, 2)).astype(np.float32)
STATISTICS = DriftStatistics(
    features=("load", "heat"),
    shape=(3, 0, 1),
    profile=TrainingProfile(features=build_feature_profile(TRAINING), energy_edges=quantile_edges(TRAINING[:, 0])),
)
LOAD, ENERGY = 0, 2


def horizon(start_us: int, *, load: float = 0.0, energy: float = 0.0, events: int = EVENTS, **more: int) -> Horizon:
    """Return a horizon with the sampling noise of its number of events, shifted by a part of a rank."""
    rng = np.random.default_rng([start_us // MINUTE, 1])
    noise = rng.standard_normal(7) * [37, 37, 37, 1200, 1200, 1200, 256] / np.sqrt(events)
    moved = np.array([128 * load, 0, 128 * energy, 0, 0, 0, 0])
    middle = np.array([0, 0, 0, 1365, 1365, 1365, 0])
    sums = np.rint(events * (middle + noise + moved)).astype(np.int64)
    outliers, fired = more.get("outliers", 0), bool(more.get("fired", 0))
    return Horizon(start_us=start_us, events=events, outliers=outliers, has_spike=fired, sums=sums)


def stretch(begin_us: int, end_us: int, course: float = 0.0) -> dict[int, Horizon]:
    """Return horizons of one hour each, with a daily course of the load."""
    return {
        start: horizon(start, load=course * np.sin(2 * np.pi * start / DAY)) for start in range(begin_us, end_us, HOUR)
    }


def judge_at(horizons: dict[int, Horizon], start_us: int, **changes: float) -> HorizonResult:
    """Return the result of a horizon against the baseline of the first 48 hours."""
    arguments = {"alpha": 1e-4, "min_effect": 0.1, "exceedance": 0.005} | changes
    result = judge_horizon(horizons[start_us], learn(horizons), STATISTICS, **arguments)
    assert result is not None
    return result


def learn(horizons: dict[int, Horizon]) -> FrozenBaseline:
    first = [horizons[start] for start in sorted(horizons) if start < 48 * HOUR]
    frozen = learn_baseline(HOUR, first, STATISTICS, from_us=0, until_us=48 * HOUR)
    assert isinstance(frozen, FrozenBaseline), frozen
    return frozen


def test_baseline_needs_thirty_horizons_with_enough_events() -> None:
    first = stretch(0, 48 * HOUR)

    def learn_from(horizons: list[Horizon]) -> FrozenBaseline | str:
        return learn_baseline(HOUR, horizons, STATISTICS, from_us=0, until_us=0)

    assert learn_from(list(first.values())[:29]) == "the base has 29 of the 30 horizons that a verdict needs"
    first[3 * HOUR] = horizon(3 * HOUR, events=EVENTS // 3)
    result = learn_from(list(first.values()))
    assert isinstance(result, FrozenBaseline)
    assert result.baseline.blocks == 47


def test_course_of_the_day_leaves_too_few_independent_horizons_for_a_baseline() -> None:
    horizons = list(stretch(0, 3 * DAY, course=0.2).values())
    problem = learn_baseline(HOUR, horizons, STATISTICS, from_us=0, until_us=3 * DAY)
    assert isinstance(problem, str)
    assert "independent ones that a verdict needs" in problem


def test_horizon_with_few_events_has_no_verdict() -> None:
    horizons = stretch(0, 3 * DAY)
    few = horizon(60 * HOUR, events=EVENTS // 3, load=0.4)
    arguments = {"alpha": 1e-4, "min_effect": 0.1, "exceedance": 0.005}
    assert judge_horizon(few, learn(horizons), STATISTICS, **arguments) is None


def test_raised_threshold_hides_a_change_just_above_the_usual_one() -> None:
    horizons = stretch(0, 3 * DAY)
    horizons[60 * HOUR] = horizon(60 * HOUR, load=0.05)
    usual = judge_at(horizons, 60 * HOUR)
    assert usual.verdict.drifted == (LOAD,)
    factor = 1.1 * abs(usual.verdict.z[LOAD]) / usual.verdict.z_threshold
    raised = judge_at(horizons, 60 * HOUR, raised=factor)
    assert raised.verdict.drifted == ()
    assert raised.verdict.z_threshold == pytest.approx(factor * usual.verdict.z_threshold)


def test_drift_ends_after_enough_clean_horizons() -> None:
    horizons = stretch(0, 4 * DAY)
    for start in (50, 51, 53):
        horizons[start * HOUR] = horizon(start * HOUR, load=0.2)
    state, lasting = DriftState(), []
    for start in range(49, 58):
        state = advance_horizon_alarm(state, judge_at(horizons, start * HOUR), resolve_after=3).state
        lasting.append(HOUR in state.alarms)
    assert lasting == [False, True, True, True, True, True, True, False, False]


def test_state_and_baselines_survive_json_bit_for_bit() -> None:
    state = DriftState(
        base_from_us=7,
        waiting={"1d": "-"},
        alarms={HOUR: DriftAlarm(since_us=5, clean=1), DAY: DriftAlarm(since_us=5, level_us=6, settled=True)},
        cycle_us=DAY,
        starts={HOUR: 3},
        raised={DAY: 0.1},
        shrunk={5: 1 / 3},
    )
    assert DriftState.from_json(state.to_json()) == state
    assert DriftState.from_json({}) == DriftState()
    base = learn(stretch(0, 4 * DAY)).baseline
    again = DriftBaseline.from_json(base.to_json())
    assert again.mean.tobytes() == base.mean.tobytes()
    assert again.deviation.tobytes() == base.deviation.tobytes()
    assert (again.rho, again.dof, again.effective) == (base.rho, base.dof, base.effective)


def test_finding_describes_the_change_in_the_unit_of_the_feature() -> None:
    horizons = stretch(0, 4 * DAY)
    horizons[60 * HOUR] = horizon(60 * HOUR, load=0.2)
    result = judge_at(horizons, 60 * HOUR)
    finding = build_drift_finding([result], STATISTICS, model_version=2, config_hash="c", per_week=1.0)
    assert finding is not None
    assert finding.summary.startswith("over the 1h from 1970-01-03T12:00:00Z: load is typically 0.6")
    assert finding.details["advice"] == "drift: refit"
    first = finding.details["horizons"][0]["drifted"][0]
    assert (first["statistic"], first["feature"]) == ("rank", "load")
    assert first["after"] == pytest.approx(0.7, abs=0.01)
    assert first["after_value"] == pytest.approx(0.524, abs=0.06)  # the normal quantile of 0.7
    assert build_drift_finding([judge_at(horizons, 61 * HOUR)], STATISTICS,
                         model_version=2, config_hash="c", per_week=1.0) is None  # fmt: skip


@pytest.mark.parametrize(
    ("outliers", "advice"), [(200, "spike: keep the threshold"), (10, "drift: refit")], ids=["heavy tail", "moved body"]
)
def test_heavy_tail_on_an_unmoved_body_advises_to_keep_the_threshold(outliers: int, advice: str) -> None:
    """A tenth of the events at the last rank moves the mean rank of the energies by a twentieth."""
    horizons = stretch(0, 4 * DAY)
    horizons[60 * HOUR] = horizon(60 * HOUR, energy=0.05, outliers=outliers, fired=1)
    result = judge_at(horizons, 60 * HOUR)
    assert result.verdict.drifted == (ENERGY,)
    finding = build_drift_finding([result], STATISTICS, model_version=1, config_hash="c", per_week=1.0)
    assert finding is not None
    assert finding.details["advice"] == advice


def test_history_holds_drifted_statistics_and_the_largest_of_each_name() -> None:
    horizons = stretch(0, 4 * DAY)
    horizons[60 * HOUR] = horizon(60 * HOUR, load=0.2)
    rows = build_verdict_rows(judge_at(horizons, 60 * HOUR), STATISTICS)
    assert [(row.statistic, row.feature) for row in rows if row.drifted] == [("rank", "load")]
    assert {row.statistic for row in rows} == {"rank", "spread", "energy_rank", "energy_spread", "pair"}
    assert {row.horizon for row in rows} == {"1h"}


def test_statistic_names_follow_the_order_of_the_sums() -> None:
    wide = replace(STATISTICS, shape=(3, 2, 1))
    named = [str(wide.statistic_at(place)) for place in range(len(wide))]
    assert named == [
        "rank of load", "rank of heat", "energy_rank", "spread of load", "spread of heat", "energy_spread",
        "occupancy of component 1", "occupancy of component 2", "pair of load * heat",
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [(3, 2, 1), (3, 0, 1), (1, 4, 0)])
def test_groups_follow_the_order_of_the_sums(shape: tuple[int, int, int]) -> None:
    statistics = replace(STATISTICS, shape=shape)
    named = [statistics.statistic_at(place).name for place in range(len(statistics))]
    assert [name for group in statistics.groups() for name in dict.fromkeys(named[group])] == list(dict.fromkeys(named))
    assert [place for group in statistics.groups() for place in range(*group.indices(len(named)))] == list(
        range(len(named))
    )


def test_history_rows_are_ordered_by_distance() -> None:
    horizons = stretch(0, 4 * DAY)
    result = judge_at(horizons, 61 * HOUR)
    rows = build_verdict_rows(result, STATISTICS)
    z = np.abs([row.z for row in rows])
    assert (np.diff(z) <= 0).all()
    assert z[0] == np.abs(result.verdict.z).max()
    assert len(rows) == len(STATISTICS.groups())


def test_windows_add_up_to_their_horizon_sums() -> None:
    whole = Horizon(start_us=0, events=0, outliers=0, has_spike=False, sums=np.zeros(7, np.int64))
    for events, outliers, fired in ((10, 1, False), (20, 3, True), (5, 0, False)):
        whole = whole.add_window(events, outliers, np.arange(7) * events, fired=fired)
    assert (whole.events, whole.outliers, whole.has_spike) == (35, 4, True)
    assert whole.sums.tolist() == (np.arange(7) * 35).tolist()


def test_finding_describes_a_moved_pair_by_its_mean_product() -> None:
    horizons = stretch(0, 4 * DAY)
    calm = horizons[60 * HOUR]
    horizons[60 * HOUR] = replace(calm, sums=calm.sums + np.array([0, 0, 0, 0, 0, 0, 77 * EVENTS]))
    result = judge_at(horizons, 60 * HOUR)
    finding = build_drift_finding([result], STATISTICS, model_version=1, config_hash="c", per_week=1.0)
    assert finding is not None
    assert "deviations from their training means, is 0.287, was -0.0039 (+0.29 deviations)" in finding.summary
    first = finding.details["horizons"][0]["drifted"][0]
    assert (first["statistic"], first["feature"], first["after_value"]) == ("pair", "load * heat", None)
