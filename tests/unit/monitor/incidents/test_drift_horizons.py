"""Drift of one stream: seasonal baselines, open and resolved drifts, and the finding."""

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from monitor.incidents.drift import build_drift_finding, build_verdict_rows
from monitor.incidents.drift_horizons import (
    FrozenBaseline,
    Horizon,
    HorizonResult,
    explain_waiting,
    has_season,
    judge_horizon,
    learn_baseline,
    learn_seasonal_baseline,
    update_drift_state,
)
from monitor.incidents.drift_state import DriftAlarm, DriftState
from monitor.incidents.drift_test import SEASON_DAYS, DriftBaseline
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


def judge_at(
    horizons: dict[int, Horizon], start_us: int, state: DriftState | None = None, *, season: bool
) -> HorizonResult:
    plain, seasonal = bases(horizons)
    result = judge_horizon(
        horizons,
        start_us,
        plain,
        seasonal if season else None,
        state or DriftState(),
        STATISTICS,
        alpha=1e-4,
        min_effect=0.1,
        exceedance=0.005,
    )
    assert result is not None
    return result


def bases(horizons: dict[int, Horizon]) -> tuple[FrozenBaseline, FrozenBaseline]:
    first = [horizons[start] for start in sorted(horizons) if start < 30 * HOUR]
    plain = learn_baseline(HOUR, first, STATISTICS, 30 * HOUR)
    assert plain is not None
    early = {start: each for start, each in horizons.items() if start < 4 * DAY}
    season = learn_seasonal_baseline(early, plain, DriftState(), STATISTICS, 4 * DAY)
    assert season is not None
    return plain, season


def test_baseline_needs_thirty_horizons_with_enough_events() -> None:
    first = stretch(0, 30 * HOUR)
    assert learn_baseline(HOUR, list(first.values())[:29], STATISTICS, 0) is None
    assert explain_waiting(HOUR, list(first.values())[:29]) == "the base has 29 of the 30 horizons that a verdict needs"
    first[3 * HOUR] = horizon(3 * HOUR, events=EVENTS // 3)
    assert learn_baseline(HOUR, list(first.values()), STATISTICS, 0) is None
    result = learn_baseline(HOUR, [*first.values(), horizon(30 * HOUR)], STATISTICS, 0)
    assert result is not None
    assert result.baseline.blocks == 30


def test_daily_course_is_no_drift_against_previous_days() -> None:
    horizons = stretch(0, 8 * DAY, course=0.2)
    calm = [judge_at(horizons, 6 * DAY + i * HOUR, season=True) for i in range(24)]
    assert not any(each.verdict.drifted for each in calm)
    at = 6 * DAY + 5 * HOUR
    horizons[at] = horizon(at, load=0.2 * np.sin(2 * np.pi * at / DAY) + 0.06)
    assert judge_at(horizons, at, season=True).verdict.drifted[0] == LOAD


def test_days_of_an_open_drift_are_not_used_as_previous_days() -> None:
    horizons = stretch(0, 5 * DAY) | {start: horizon(start, load=0.1) for start in range(5 * DAY, 9 * DAY, HOUR)}
    late = 7 * DAY + 6 * HOUR
    assert not judge_at(horizons, late, season=True).verdict.drifted
    open_since = DriftState(alarms={HOUR: DriftAlarm(since_us=5 * DAY)})
    assert judge_at(horizons, late, open_since, season=True).verdict.drifted == (LOAD,)


def test_days_of_a_past_drift_are_not_used_as_previous_days() -> None:
    horizons = stretch(0, 8 * DAY)
    for start in range(5 * DAY, 5 * DAY + 6 * HOUR, HOUR):
        horizons[start] = horizon(start, load=0.2)
    after = 6 * DAY + 2 * HOUR
    assert judge_at(horizons, after, season=True).verdict.drifted == (LOAD,)
    past = DriftState(spans={HOUR: [(5 * DAY, 5 * DAY + 6 * HOUR)]})
    assert not judge_at(horizons, after, past, season=True).verdict.drifted


def test_no_verdict_without_previous_days_or_with_few_events() -> None:
    horizons = stretch(0, 6 * DAY)
    plain, season = bases(horizons)
    arguments = {"alpha": 1e-4, "min_effect": 0.1, "exceedance": 0.005}
    drifted = DriftState(spans={HOUR: [(0, 5 * DAY)]})
    assert judge_horizon(horizons, 5 * DAY, plain, season, drifted, STATISTICS, **arguments) is None
    horizons[5 * DAY] = horizon(5 * DAY, events=EVENTS // 3, load=0.4)
    assert judge_horizon(horizons, 5 * DAY, plain, None, DriftState(), STATISTICS, **arguments) is None


def test_seasonal_baseline_excludes_days_of_a_drift() -> None:
    horizons = stretch(0, 4 * DAY)
    plain, season = bases(horizons)
    assert season.baseline.blocks == 2 * 24
    spans = DriftState(spans={HOUR: [(DAY, DAY + 12 * HOUR)]})
    fewer = learn_seasonal_baseline(horizons, plain, spans, STATISTICS, 4 * DAY)
    assert fewer is not None
    assert fewer.baseline.blocks == (4 - SEASON_DAYS) * 24 - 12


def test_drift_ends_after_enough_clean_horizons() -> None:
    horizons = stretch(0, 4 * DAY)
    for start in (50, 51, 53):
        horizons[start * HOUR] = horizon(start * HOUR, load=0.2)
    state, lasting = DriftState(), []
    for start in range(49, 58):
        state = update_drift_state(state, [judge_at(horizons, start * HOUR, season=False)], resolve_after=3)
        lasting.append(HOUR in state.alarms)
    assert lasting == [False, True, True, True, True, True, True, False, False]
    assert state.spans == {HOUR: [(50 * HOUR, 56 * HOUR)]}


def test_state_and_baselines_survive_json_bit_for_bit() -> None:
    state = DriftState(
        base_from_us=7, waiting={"1d": "-"}, alarms={HOUR: DriftAlarm(since_us=5, clean=1)}, spans={HOUR: [(1, 2)]}
    )
    assert DriftState.from_json(state.to_json()) == state
    assert DriftState.from_json({}) == DriftState()
    base = bases(stretch(0, 4 * DAY))[0].baseline
    again = DriftBaseline.from_json(base.to_json())
    assert again.mean.tobytes() == base.mean.tobytes()
    assert again.deviation.tobytes() == base.deviation.tobytes()
    assert (again.rho, again.dof, again.effective) == (base.rho, base.dof, base.effective)


def test_finding_describes_the_change_in_the_unit_of_the_feature() -> None:
    horizons = stretch(0, 4 * DAY)
    horizons[60 * HOUR] = horizon(60 * HOUR, load=0.2)
    result = judge_at(horizons, 60 * HOUR, season=False)
    finding = build_drift_finding([result], STATISTICS, model_version=2, config_hash="c", per_week=1.0)
    assert finding is not None
    assert finding.summary.startswith("over the 1h from 1970-01-03T12:00:00Z: load is typically 0.6")
    assert finding.details["advice"] == "drift: refit"
    first = finding.details["horizons"][0]["drifted"][0]
    assert (first["statistic"], first["feature"]) == ("rank", "load")
    assert first["after"] == pytest.approx(0.7, abs=0.01)
    assert first["after_value"] == pytest.approx(0.524, abs=0.06)  # the normal quantile of 0.7
    assert build_drift_finding([judge_at(horizons, 61 * HOUR, season=False)], STATISTICS,
                         model_version=2, config_hash="c", per_week=1.0) is None  # fmt: skip


@pytest.mark.parametrize(
    ("outliers", "advice"), [(200, "spike: keep the threshold"), (10, "drift: refit")], ids=["heavy tail", "moved body"]
)
def test_heavy_tail_on_an_unmoved_body_advises_to_keep_the_threshold(outliers: int, advice: str) -> None:
    """A tenth of the events at the last rank moves the mean rank of the energies by a twentieth."""
    horizons = stretch(0, 4 * DAY)
    horizons[60 * HOUR] = horizon(60 * HOUR, energy=0.05, outliers=outliers, fired=1)
    result = judge_at(horizons, 60 * HOUR, season=False)
    assert result.verdict.drifted == (ENERGY,)
    finding = build_drift_finding([result], STATISTICS, model_version=1, config_hash="c", per_week=1.0)
    assert finding is not None
    assert finding.details["advice"] == advice


def test_history_holds_drifted_statistics_and_the_largest_of_each_name() -> None:
    horizons = stretch(0, 4 * DAY)
    horizons[60 * HOUR] = horizon(60 * HOUR, load=0.2)
    rows = build_verdict_rows(judge_at(horizons, 60 * HOUR, season=False), STATISTICS)
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
    result = judge_at(horizons, 61 * HOUR, season=False)
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


@pytest.mark.parametrize(
    ("horizon_us", "season"), [(10 * MINUTE, True), (HOUR, True), (7 * HOUR, False), (DAY, False), (7 * DAY, False)]
)
def test_only_horizons_that_divide_the_day_have_a_season(horizon_us: int, season: bool) -> None:
    assert has_season(horizon_us) is season


def test_seasonal_baseline_needs_enough_horizons_with_two_previous_days() -> None:
    horizons = stretch(0, 4 * DAY)
    plain, _ = bases(horizons)
    third = {start: each for start, each in horizons.items() if start < 3 * DAY}
    assert learn_seasonal_baseline(third, plain, DriftState(), STATISTICS, 3 * DAY) is None
    more = third | {3 * DAY + i * HOUR: horizons[3 * DAY + i * HOUR] for i in range(6)}
    result = learn_seasonal_baseline(more, plain, DriftState(), STATISTICS, 3 * DAY + 6 * HOUR)
    assert result is not None
    assert (result.baseline.blocks, result.is_seasonal) == (30, True)


def test_finding_describes_a_moved_pair_by_its_mean_product() -> None:
    horizons = stretch(0, 4 * DAY)
    calm = horizons[60 * HOUR]
    horizons[60 * HOUR] = replace(calm, sums=calm.sums + np.array([0, 0, 0, 0, 0, 0, 77 * EVENTS]))
    result = judge_at(horizons, 60 * HOUR, season=False)
    finding = build_drift_finding([result], STATISTICS, model_version=1, config_hash="c", per_week=1.0)
    assert finding is not None
    assert "deviations from their training means, is 0.287, was -0.00331 (+0.29 deviations)" in finding.summary
    first = finding.details["horizons"][0]["drifted"][0]
    assert (first["statistic"], first["feature"], first["after_value"]) == ("pair", "load * heat", None)


BERLIN = "Europe/Berlin"
CLOCK_CHANGES = ["2026-03-29", "2026-10-25"]


def local_days(change: str, horizon_us: int) -> tuple[dict[int, Horizon], int]:
    """Return horizons with more load from 8:00 to 20:00 in Berlin, five days before a clock change and three after."""
    change_us = int(datetime.fromisoformat(f"{change}T00:00Z").timestamp()) * 1_000_000

    def load_at(start_us: int) -> float:
        return 0.2 * (8 <= datetime.fromtimestamp(start_us // 1_000_000, ZoneInfo(BERLIN)).hour < 20)

    starts = range(change_us - 5 * DAY, change_us + 3 * DAY, horizon_us)
    return {start: horizon(start, load=load_at(start)) for start in starts}, change_us


@pytest.mark.parametrize("change", CLOCK_CHANGES)
def test_course_of_the_local_day_is_no_drift_after_a_clock_change(change: str) -> None:
    horizons, change_us = local_days(change, HOUR)
    early = {start: each for start, each in horizons.items() if start < change_us}
    plain = learn_baseline(HOUR, list(early.values()), STATISTICS, change_us)
    assert plain is not None

    def count_drifts(timezone: str) -> int:
        season = learn_seasonal_baseline(early, plain, DriftState(), STATISTICS, change_us, timezone)
        assert season is not None
        arguments = {"alpha": 1e-4, "min_effect": 0.1, "exceedance": 0.005, "timezone": timezone}
        found = [
            judge_horizon(horizons, start, plain, season, DriftState(), STATISTICS, **arguments)
            for start in horizons
            if start >= change_us
        ]
        return sum(bool(result.verdict.drifted) for result in found if result is not None)

    assert count_drifts("UTC") >= 2
    assert count_drifts(BERLIN) == 0


@pytest.mark.parametrize("change", CLOCK_CHANGES)
def test_horizons_longer_than_a_clock_change_have_previous_days(change: str) -> None:
    horizons, change_us = local_days(change, 2 * HOUR)
    early = [each for start, each in horizons.items() if start < change_us]
    plain = learn_baseline(2 * HOUR, early, STATISTICS, change_us)
    assert plain is not None
    season = replace(plain, is_seasonal=True)
    arguments = {"alpha": 1e-4, "min_effect": 0.1, "exceedance": 0.005, "timezone": BERLIN}
    for start in [start for start in horizons if start >= change_us]:
        assert judge_horizon(horizons, start, plain, season, DriftState(), STATISTICS, **arguments) is not None


def test_share_that_varies_at_one_time_of_day_only_has_the_deviation_of_its_events() -> None:
    """Occupancies are 0 or 1 at most hours. At the hours between, the baseline's deviation is far too small."""
    statistics = DriftStatistics(features=STATISTICS.features, shape=(3, 2, 1), profile=STATISTICS.profile)
    rng = np.random.default_rng(2)

    def day_with_transitions(start: int, at_noon: float = 0.5) -> Horizon:
        each = horizon(start, events=60)
        hour = start // HOUR % 24
        share = at_noon if hour == 12 else float(hour > 12)
        count = 65_536 * rng.binomial(60, share)
        return replace(each, sums=np.insert(each.sums, 6, [count, 60 * 65_536 - count]))

    horizons = {start: day_with_transitions(start) for start in range(0, 60 * DAY, HOUR)}
    plain = learn_baseline(HOUR, [horizons[hour * HOUR] for hour in range(30)], statistics, 30 * HOUR)
    assert plain is not None
    early = {start: each for start, each in horizons.items() if start < 5 * DAY}
    season = learn_seasonal_baseline(early, plain, DriftState(), statistics, 5 * DAY)
    assert season is not None

    def drifted_at(start: int) -> tuple[int, ...]:
        result = judge_horizon(
            horizons, start, plain, season, DriftState(), statistics, alpha=1e-4, min_effect=0.1, exceedance=0.005
        )
        assert result is not None
        return tuple(index for index in result.verdict.drifted if index in (6, 7))

    noons = [day * DAY + 12 * HOUR for day in range(8, 60)]
    assert not any(map(drifted_at, noons))
    horizons[noons[0]] = day_with_transitions(noons[0], at_noon=1.0)
    assert set(drifted_at(noons[0])) == {6, 7}
