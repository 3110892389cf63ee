"""Drift of one stream: from the means of past horizons to a verdict, and how a drift lives on. Pure.

A horizon is a stretch of event time of fixed length, aligned to its multiples. Its means are compared with a base that
is frozen once after a model became active. From the third day on, where the horizon divides the day, they are first
reduced by those of the same time on days before that had no drift, and the base is one of such differences: a daily
course is no drift, and a lasting change stays one, because the days that it has reached count as no example.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from config.time_format import DAY_US
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
from monitor.statistics.training_profile import Float64, Int64

SEASON_SEARCH_DAYS = 7
"""Days that are searched for two without drift at the same time."""

MAX_BASELINE_SPAN_US = 40 * DAY_US
"""Time within which a base has to come together; what is older is not looked at any more."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Horizon:
    """All windows that begin in one stretch of event time, added up; `fired` when a count of outliers in it did."""

    start_us: int
    events: int
    outliers: int
    has_spike: bool
    sums: Int64

    def add_window(self, events: int, outliers: int, sums: Int64, *, fired: bool) -> "Horizon":
        """Return the horizon with one window more."""
        return Horizon(
            start_us=self.start_us,
            events=self.events + events,
            outliers=self.outliers + outliers,
            has_spike=self.has_spike or fired,
            sums=self.sums + sums,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftAlarm:
    """A drift that lasts over one horizon's length: the first horizon that showed it, and clean ones since."""

    since_us: int
    clean: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftState:
    """What is carried from step to step, by the length of the horizon.

    `alarms` are the drifts that last; `spans` what earlier ones covered: no example of a normal day. `waiting` says,
    for people, why there is no verdict yet, by the horizon as the configuration writes it.
    """

    base_from_us: int | None = None
    waiting: Mapping[str, str] = field(default_factory=dict)
    alarms: Mapping[int, DriftAlarm] = field(default_factory=dict)
    spans: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)

    def is_drifting(self, horizon_us: int, start_us: int) -> bool:
        """Return whether a horizon lies in a drift."""
        alarm = self.alarms.get(horizon_us)
        if alarm is not None and start_us >= alarm.since_us:
            return True
        return any(begin <= start_us < end for begin, end in self.spans.get(horizon_us, ()))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrozenBaseline:
    """What is normal over one horizon: of the means themselves, or of differences against days before (`season`)."""

    horizon_us: int
    is_seasonal: bool
    frozen_at_us: int
    baseline: DriftBaseline


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HorizonResult:
    """One judged horizon: what it was compared with, and the verdict; `body_z` is the energies' without the outliers.

    `before` are the means that it is compared with, of the base or of the days before.
    """

    horizon_us: int
    horizon: Horizon
    baseline: FrozenBaseline
    before: Float64
    after: Float64
    alpha: float
    verdict: DriftVerdict
    body_z: float


def learn_baseline(
    horizon_us: int, horizons: Sequence[Horizon], statistics: DriftStatistics, until_us: int
) -> FrozenBaseline | None:
    """Return the base of the means, once enough horizons with enough events span enough time.

    Args:
        horizon_us: Their length.
        horizons: Those with events since the base may begin, in order.
        statistics: Of the model.
        until_us: The time up to which is judged.
    """
    chosen = _select_comparable(horizons)
    if baseline_problem(np.array([each.start_us for each in chosen], np.int64), horizon_us=horizon_us) is not None:
        return None
    means = np.array([statistics.means(each.sums, each.events) for each in chosen])
    events = np.array([each.events for each in chosen], np.int64)
    base = fit_baseline(means, events, statistics.units(means.mean(axis=0)))
    return FrozenBaseline(horizon_us=horizon_us, is_seasonal=False, frozen_at_us=until_us, baseline=base)


def explain_waiting(horizon_us: int, horizons: Sequence[Horizon]) -> str | None:
    """Say why these horizons, in order, are no base yet; None where they are."""
    starts = np.array([each.start_us for each in _select_comparable(horizons)], np.int64)
    return baseline_problem(starts, horizon_us=horizon_us)


def learn_seasonal_baseline(
    horizons: Mapping[int, Horizon],
    plain: FrozenBaseline,
    state: DriftState,
    statistics: DriftStatistics,
    until_us: int,
) -> FrozenBaseline | None:
    """Return the base of differences against days before, once enough horizons have such days; see `learn`."""
    if not horizons or max(horizons) - min(horizons) + plain.horizon_us < (SEASON_DAYS + 1) * DAY_US:
        return None  # horizons with so many days before them span no day yet
    chosen = _select_comparable([horizons[start] for start in sorted(horizons)])
    pairs = [
        (each, before)
        for each in chosen
        if not state.is_drifting(plain.horizon_us, each.start_us)
        and (before := _mean_of_previous_days(horizons, each.start_us, plain, state, statistics)) is not None
    ]
    starts = np.array([each.start_us for each, _ in pairs], np.int64)
    if baseline_problem(starts, horizon_us=plain.horizon_us) is not None:
        return None
    differences = np.array([statistics.means(each.sums, each.events) - before for each, before in pairs])
    events = np.array([each.events for each, _ in pairs], np.int64)
    base = fit_baseline(differences, events, statistics.units(plain.baseline.mean))
    return FrozenBaseline(horizon_us=plain.horizon_us, is_seasonal=True, frozen_at_us=until_us, baseline=base)


def has_season(horizon_us: int) -> bool:
    """Return whether horizons of a length have the same time on other days."""
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
) -> HorizonResult | None:
    """Judge one horizon; None where it has too few events, or no day before to be compared with.

    Args:
        horizons: The horizons of this length, by their start.
        start_us: Which of them.
        plain: Base of the means.
        season: Base of the differences, once there is one.
        state: The drifts that are known.
        statistics: Of the model.
        alpha: Probability of a false alarm that it may spend.
        min_effect: Smallest change worth telling, in training deviations.
        exceedance: Share of normal events above the limit.
    """
    horizon = horizons[start_us]
    frozen = season or plain
    normal = (
        plain.baseline.mean if season is None else _mean_of_previous_days(horizons, start_us, plain, state, statistics)
    )
    if normal is None:
        return None
    after = statistics.means(horizon.sums, horizon.events)
    units = statistics.units(plain.baseline.mean)
    current = after - normal if frozen.is_seasonal else after
    verdict = judge_drift(frozen.baseline, current, horizon.events, units, alpha=alpha, min_effect=min_effect)
    if verdict is None:
        return None
    place = statistics.energy_rank_index
    shift = _mean_rank_without_outliers(horizon, after[place], exceedance) - after[place]
    width = frozen.baseline.deviation[place] * np.sqrt(1 + 1 / frozen.baseline.effective)
    return HorizonResult(
        horizon_us=plain.horizon_us,
        horizon=horizon,
        baseline=frozen,
        before=normal,
        after=after,
        alpha=alpha,
        verdict=verdict,
        body_z=float(verdict.z[place] + shift / width),
    )


def _mean_rank_without_outliers(horizon: Horizon, mean_rank: float, exceedance: float) -> float:
    """Return the mean rank of the energies without the outliers that are too many: each of them has the last rank."""
    excess = max(0.0, horizon.outliers - exceedance * horizon.events)
    last = 1 - 0.5 / 64
    return float((mean_rank * horizon.events - last * excess) / max(horizon.events - excess, 1.0))


def update_drift_state(state: DriftState, judged: Iterable[HorizonResult], resolve_after: int) -> DriftState:
    """Return the state after some horizons were judged: drifts begin, last, and end after enough clean horizons."""
    alarms, spans = dict(state.alarms), dict(state.spans)
    for each in judged:
        length, start_us = each.horizon_us, each.horizon.start_us
        known = alarms.get(length)
        if each.verdict.drifted:
            alarms[length] = DriftAlarm(since_us=start_us if known is None else known.since_us)
        elif known is not None and known.clean + 1 < resolve_after:
            alarms[length] = replace(known, clean=known.clean + 1)
        elif known is not None:
            del alarms[length]
            kept = [span for span in spans.get(length, ()) if span[1] > start_us - (SEASON_SEARCH_DAYS + 2) * DAY_US]
            spans[length] = [*kept, (known.since_us, start_us)]
    return replace(state, alarms=alarms, spans=spans)


def _select_comparable(horizons: Sequence[Horizon]) -> list[Horizon]:
    """Return the horizons with enough events to be compared with the others."""
    typical = float(np.median([each.events for each in horizons])) if horizons else 0.0
    return [each for each in horizons if each.events >= MIN_EVENT_SHARE * typical]


def _mean_of_previous_days(
    horizons: Mapping[int, Horizon],
    start_us: int,
    plain: FrozenBaseline,
    state: DriftState,
    statistics: DriftStatistics,
) -> Float64 | None:
    """Return the average means of the same time on the last two days without drift; None where there are none."""
    found = []
    for days in range(1, SEASON_SEARCH_DAYS + 1):
        example = horizons.get(start_us - days * DAY_US)
        if example is None or example.events < MIN_EVENT_SHARE * plain.baseline.typical_events:
            continue
        if not state.is_drifting(plain.horizon_us, example.start_us):
            found.append(statistics.means(example.sums, example.events))
        if len(found) == SEASON_DAYS:
            return np.asarray(sum(found) / SEASON_DAYS, np.float64)
    return None


def state_to_json(state: DriftState) -> dict[str, Any]:
    """Return the state as JSON."""
    return {
        "base_from_us": state.base_from_us,
        "waiting": dict(state.waiting),
        "alarms": {str(length): asdict(alarm) for length, alarm in state.alarms.items()},
        "spans": {str(length): [list(span) for span in spans] for length, spans in state.spans.items()},
    }


def state_from_json(stored: Mapping[str, Any]) -> DriftState:
    """Return the state that `state_to_json` wrote, or the first one."""
    return DriftState(
        base_from_us=stored.get("base_from_us"),
        waiting=stored.get("waiting", {}),
        alarms={int(length): DriftAlarm(**alarm) for length, alarm in stored.get("alarms", {}).items()},
        spans={
            int(length): [(begin, end) for begin, end in spans] for length, spans in stored.get("spans", {}).items()
        },
    )


def baseline_to_json(base: DriftBaseline) -> dict[str, Any]:
    """Return a base as JSON: floats are written so that they are read back to the bit."""
    return asdict(base) | {"mean": base.mean.tolist(), "deviation": base.deviation.tolist()}


def baseline_from_json(stored: Mapping[str, Any]) -> DriftBaseline:
    """Return the base that `base_to_json` wrote."""
    arrays = {name: np.array(stored[name], np.float64) for name in ("mean", "deviation")}
    return DriftBaseline(**{**stored, **arrays})
