"""Baselines and verdicts of the drift test of one stream, from the means of past horizons. Pure functions.

A horizon is an interval of event time of fixed length, aligned to its multiples. Its means are compared with a baseline
that is frozen once after a model was activated. From the third day on, if the length divides a day, a seasonal baseline
is used: the means at the same local time of previous days without drift are subtracted first. A daily course is
therefore not a drift. A lasting change remains a drift, because the days since its start are not used as previous days.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from config.local_time import shift_local_days
from config.time_format import DAY_US, HOUR_US
from monitor.incidents.drift_state import DriftAlarm, DriftState
from monitor.incidents.drift_test import (
    MIN_EVENT_SHARE,
    SEASON_DAYS,
    DriftBaseline,
    DriftVerdict,
    baseline_problem,
    fit_baseline,
    judge_drift,
)
from monitor.statistics.drift_means import DriftStatistics
from monitor.statistics.training_profile import N_BINS, Float64, Int64

SEASON_SEARCH_DAYS = 7
"""Number of previous days that are searched for two without drift at the same time."""

SEASON_SEARCH_US = SEASON_SEARCH_DAYS * DAY_US + 2 * HOUR_US
"""Time within which these days lie, with a clock change among them."""

MAX_BASELINE_SPAN_US = 40 * DAY_US
"""Time within which the horizons of a baseline must lie. Older horizons are not read."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Horizon:
    """The sums of all windows that begin in one interval of event time.

    `has_spike` is True if the outlier count of one fired.
    """

    start_us: int
    events: int
    outliers: int
    has_spike: bool
    sums: Int64

    def add_window(self, events: int, outliers: int, sums: Int64, *, fired: bool) -> "Horizon":
        """Return the horizon with one more window."""
        return Horizon(
            start_us=self.start_us,
            events=self.events + events,
            outliers=self.outliers + outliers,
            has_spike=self.has_spike or fired,
            sums=self.sums + sums,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrozenBaseline:
    """The baseline of one horizon length: of the means, or of their differences from previous days (`is_seasonal`)."""

    horizon_us: int
    is_seasonal: bool
    frozen_at_us: int
    baseline: DriftBaseline


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HorizonResult:
    """The result of one tested horizon, with the baseline and the verdict.

    `before` are the means to compare with, of the baseline or of the previous days. `body_z` is the z of the energies
    without the excess outliers.
    """

    horizon_us: int
    horizon: Horizon
    frozen: FrozenBaseline
    before: Float64
    after: Float64
    alpha: float
    verdict: DriftVerdict
    body_z: float


def learn_baseline(
    horizon_us: int, horizons: Sequence[Horizon], statistics: DriftStatistics, until_us: int
) -> FrozenBaseline | None:
    """Return the baseline of the means, or None until enough horizons with enough events span enough time.

    Args:
        horizon_us: Length of the horizons.
        horizons: Horizons with events since the baseline may begin, in order.
        statistics: Statistics of the model.
        until_us: Event time up to which the stream is judged.
    """
    comparable = _select_comparable(horizons)
    if baseline_problem(np.array([each.start_us for each in comparable], np.int64), horizon_us=horizon_us) is not None:
        return None
    means = np.array([statistics.means(each.sums, each.events) for each in comparable])
    events = np.array([each.events for each in comparable], np.int64)
    baseline = fit_baseline(means, events, statistics.units(means.mean(axis=0)))
    return FrozenBaseline(horizon_us=horizon_us, is_seasonal=False, frozen_at_us=until_us, baseline=baseline)


def explain_waiting(horizon_us: int, horizons: Sequence[Horizon]) -> str | None:
    """Return the reason why these horizons, in order, are no baseline yet, or None if they are."""
    starts = np.array([each.start_us for each in _select_comparable(horizons)], np.int64)
    return baseline_problem(starts, horizon_us=horizon_us)


def learn_seasonal_baseline(
    horizons: Mapping[int, Horizon],
    plain: FrozenBaseline,
    state: DriftState,
    statistics: DriftStatistics,
    until_us: int,
    timezone: str = "UTC",
) -> FrozenBaseline | None:
    """Return the baseline of differences from previous days, or None until enough horizons have such days.

    The arguments are those of `learn_baseline`, and the time zone of the times of day.
    """
    if not horizons or max(horizons) - min(horizons) + plain.horizon_us < (SEASON_DAYS + 1) * DAY_US:
        return None  # horizons with so many days before them span no day yet
    comparable = _select_comparable([horizons[start] for start in sorted(horizons)])
    pairs = [
        (each, before)
        for each in comparable
        if not state.is_drifting(plain.horizon_us, each.start_us)
        and (before := _mean_of_previous_days(horizons, each.start_us, plain, state, statistics, timezone)) is not None
    ]
    starts = np.array([each.start_us for each, _ in pairs], np.int64)
    if baseline_problem(starts, horizon_us=plain.horizon_us) is not None:
        return None
    differences = np.array([statistics.means(each.sums, each.events) - before for each, before in pairs])
    events = np.array([each.events for each, _ in pairs], np.int64)
    baseline = fit_baseline(differences, events, statistics.units(plain.baseline.mean))
    return FrozenBaseline(horizon_us=plain.horizon_us, is_seasonal=True, frozen_at_us=until_us, baseline=baseline)


def has_season(horizon_us: int) -> bool:
    """Return True if horizons of this length have the same time on other days."""
    return horizon_us < DAY_US and DAY_US % horizon_us == 0


def judge_horizon(
    horizons: Mapping[int, Horizon],
    start_us: int,
    plain: FrozenBaseline,
    season: FrozenBaseline | None,
    state: DriftState,
    statistics: DriftStatistics,
    *,
    alpha: float,
    min_effect: float,
    exceedance: float,
    timezone: str = "UTC",
) -> HorizonResult | None:
    """Test one horizon. None if it has too few events or no previous day to compare with.

    Args:
        horizons: Horizons of this length by their start.
        start_us: Start of the tested horizon.
        plain: Baseline of the means.
        season: Baseline of the differences, if available.
        state: The known drifts.
        statistics: Statistics of the model.
        alpha: False-alarm probability of the horizon.
        min_effect: Smallest change that counts as drift, in training deviations.
        exceedance: Share of normal events above the threshold.
        timezone: IANA name of the time zone of the times of day.
    """
    horizon = horizons[start_us]
    frozen = season or plain
    normal: Float64 | None = plain.baseline.mean
    if season is not None:
        normal = _mean_of_previous_days(horizons, start_us, plain, state, statistics, timezone)
    if normal is None:
        return None
    after = statistics.means(horizon.sums, horizon.events)
    units = statistics.units(plain.baseline.mean)
    current = after - normal if frozen.is_seasonal else after
    verdict = judge_drift(
        frozen.baseline,
        current,
        horizon.events,
        units,
        alpha=alpha,
        min_effect=min_effect,
        least_deviation=_sampling_deviations(statistics, frozen, normal, after, horizon.events),
    )
    if verdict is None:
        return None
    index = statistics.energy_rank_index
    shift = _mean_rank_without_outliers(horizon, after[index], exceedance) - after[index]
    width = frozen.baseline.deviation[index] * np.sqrt(1 + 1 / frozen.baseline.effective)
    return HorizonResult(
        horizon_us=plain.horizon_us,
        horizon=horizon,
        frozen=frozen,
        before=normal,
        after=after,
        alpha=alpha,
        verdict=verdict,
        body_z=float(verdict.z[index] + shift / width),
    )


def _sampling_deviations(
    statistics: DriftStatistics, frozen: FrozenBaseline, before: Float64, after: Float64, events: int
) -> Float64:
    """Return the deviation that independent events give each change, with the shares of both samples together."""
    samples = SEASON_DAYS if frozen.is_seasonal else frozen.baseline.blocks
    shares = (samples * before + after) / (samples + 1)
    return statistics.sampling_deviations(shares, (1 + 1 / samples) / events)


def _mean_rank_without_outliers(horizon: Horizon, mean_rank: float, exceedance: float) -> float:
    """Return the mean rank of the energies without the excess outliers, each of which has the last rank."""
    excess = max(0.0, horizon.outliers - exceedance * horizon.events)
    last = 1 - 0.5 / N_BINS
    return float((mean_rank * horizon.events - last * excess) / max(horizon.events - excess, 1.0))


def update_drift_state(state: DriftState, judged: Iterable[HorizonResult], resolve_after: int) -> DriftState:
    """Return the state after some horizons were tested: drifts begin, continue, and end after enough clean horizons."""
    alarms, spans = dict(state.alarms), dict(state.spans)
    for each in judged:
        length, start_us = each.horizon_us, each.horizon.start_us
        alarm = alarms.get(length)
        if each.verdict.drifted:
            alarms[length] = DriftAlarm(since_us=start_us if alarm is None else alarm.since_us)
        elif alarm is not None and alarm.clean + 1 < resolve_after:
            alarms[length] = replace(alarm, clean=alarm.clean + 1)
        elif alarm is not None:
            del alarms[length]
            recent_spans = [
                span for span in spans.get(length, ()) if span[1] > start_us - (SEASON_SEARCH_DAYS + 2) * DAY_US
            ]
            spans[length] = [*recent_spans, (alarm.since_us, start_us)]
    return replace(state, alarms=alarms, spans=spans)


def _select_comparable(horizons: Sequence[Horizon]) -> list[Horizon]:
    """Return the horizons with enough events for a comparison with the others."""
    typical = float(np.median([each.events for each in horizons])) if horizons else 0.0
    return [each for each in horizons if each.events >= MIN_EVENT_SHARE * typical]


def _mean_of_previous_days(
    horizons: Mapping[int, Horizon],
    start_us: int,
    plain: FrozenBaseline,
    state: DriftState,
    statistics: DriftStatistics,
    timezone: str,
) -> Float64 | None:
    """Return the mean over the same local time on the last two days without drift, or None if there are none."""
    examples = []
    for days in range(1, SEASON_SEARCH_DAYS + 1):
        example = horizons.get(_start_on_earlier_day(start_us, days, plain.horizon_us, timezone))
        if example is None or example.events < MIN_EVENT_SHARE * plain.baseline.typical_events:
            continue
        if not state.is_drifting(plain.horizon_us, example.start_us):
            examples.append(statistics.means(example.sums, example.events))
        if len(examples) == SEASON_DAYS:
            return np.asarray(sum(examples) / SEASON_DAYS, np.float64)
    return None


def _start_on_earlier_day(start_us: int, days: int, horizon_us: int, timezone: str) -> int:
    """Return the start of the horizon at the same local time some days earlier.

    Horizons begin at multiples of their length in UTC. If a clock change shifts the time of day by less than a length,
    the nearest horizon is returned.
    """
    earlier_us, _ = shift_local_days(start_us, -days, timezone)
    return (earlier_us + horizon_us // 2) // horizon_us * horizon_us
