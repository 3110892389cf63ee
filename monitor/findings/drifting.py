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

from monitor.drift import (
    LEAST_EVENTS,
    SEASON_DAYS,
    Base,
    DriftVerdict,
    fit_base,
    judge_drift,
    not_ready,
)
from monitor.drifts.drift_statistics import Statistics
from monitor.drifts.yardstick import Float64, Int64
from monitor.spikes import DAY_US

EXAMPLE_DAYS = 7
"""Days that are searched for two without drift at the same time."""

LONGEST_LEARNING_US = 40 * DAY_US
"""Time within which a base has to come together; what is older is not looked at any more."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Horizon:
    """All windows that begin in one stretch of event time, added up; `fired` when a count of outliers in it did."""

    start_us: int
    events: int
    outliers: int
    fired: bool
    sums: Int64

    def plus(self, events: int, outliers: int, sums: Int64, *, fired: bool) -> "Horizon":
        """Return the horizon with one window more."""
        return Horizon(
            start_us=self.start_us,
            events=self.events + events,
            outliers=self.outliers + outliers,
            fired=self.fired or fired,
            sums=self.sums + sums,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
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
    alarms: Mapping[int, Alarm] = field(default_factory=dict)
    spans: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)

    def drifting(self, horizon_us: int, start_us: int) -> bool:
        """Return whether a horizon lies in a drift."""
        alarm = self.alarms.get(horizon_us)
        if alarm is not None and start_us >= alarm.since_us:
            return True
        return any(begin <= start_us < end for begin, end in self.spans.get(horizon_us, ()))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrozenBase:
    """What is normal over one horizon: of the means themselves, or of differences against days before (`season`)."""

    horizon_us: int
    season: bool
    until_us: int
    base: Base


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """One judged horizon: what it was compared with, and the verdict; `body_z` is the energies' without the outliers.

    `before` are the means that it is compared with, of the base or of the days before.
    """

    horizon_us: int
    horizon: Horizon
    frozen: FrozenBase
    before: Float64
    after: Float64
    alpha: float
    verdict: DriftVerdict
    body_z: float


def learn(horizon_us: int, horizons: Sequence[Horizon], statistics: Statistics, until_us: int) -> FrozenBase | None:
    """Return the base of the means, once enough horizons with enough events span enough time.

    Args:
        horizon_us: Their length.
        horizons: Those with events since the base may begin, in order.
        statistics: Of the model.
        until_us: The time up to which is judged.
    """
    chosen = _enough(horizons)
    if not_ready(np.array([each.start_us for each in chosen], np.int64), horizon_us=horizon_us) is not None:
        return None
    means = np.array([statistics.means(each.sums, each.events) for each in chosen])
    events = np.array([each.events for each in chosen], np.int64)
    base = fit_base(means, events, statistics.units(means.mean(axis=0)))
    return FrozenBase(horizon_us=horizon_us, season=False, until_us=until_us, base=base)


def why_waiting(horizon_us: int, horizons: Sequence[Horizon]) -> str | None:
    """Say why these horizons, in order, are no base yet; None where they are."""
    starts = np.array([each.start_us for each in _enough(horizons)], np.int64)
    return not_ready(starts, horizon_us=horizon_us)


def learn_season(
    horizons: Mapping[int, Horizon], plain: FrozenBase, state: DriftState, statistics: Statistics, until_us: int
) -> FrozenBase | None:
    """Return the base of differences against days before, once enough horizons have such days; see `learn`."""
    if not horizons or max(horizons) - min(horizons) + plain.horizon_us < (SEASON_DAYS + 1) * DAY_US:
        return None  # horizons with so many days before them span no day yet
    chosen = _enough([horizons[start] for start in sorted(horizons)])
    pairs = [
        (each, before)
        for each in chosen
        if not state.drifting(plain.horizon_us, each.start_us)
        and (before := _days_before(horizons, each.start_us, plain, state, statistics)) is not None
    ]
    starts = np.array([each.start_us for each, _ in pairs], np.int64)
    if not_ready(starts, horizon_us=plain.horizon_us) is not None:
        return None
    differences = np.array([statistics.means(each.sums, each.events) - before for each, before in pairs])
    events = np.array([each.events for each, _ in pairs], np.int64)
    base = fit_base(differences, events, statistics.units(plain.base.mean))
    return FrozenBase(horizon_us=plain.horizon_us, season=True, until_us=until_us, base=base)


def has_season(horizon_us: int) -> bool:
    """Return whether horizons of a length have the same time on other days."""
    return horizon_us < DAY_US and DAY_US % horizon_us == 0


def judge_horizon(
    horizons: Mapping[int, Horizon],
    start_us: int,
    plain: FrozenBase,
    season: FrozenBase | None,
    state: DriftState,
    statistics: Statistics,
    *,
    alpha: float,
    min_effect: float,
    exceedance: float,
) -> Judged | None:
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
    normal = plain.base.mean if season is None else _days_before(horizons, start_us, plain, state, statistics)
    if normal is None:
        return None
    after = statistics.means(horizon.sums, horizon.events)
    units = statistics.units(plain.base.mean)
    current = after - normal if frozen.season else after
    verdict = judge_drift(frozen.base, current, horizon.events, units, alpha=alpha, min_effect=min_effect)
    if verdict is None:
        return None
    place = statistics.energy_rank
    shift = _body_mean(horizon, after[place], exceedance) - after[place]
    width = frozen.base.deviation[place] * np.sqrt(1 + 1 / frozen.base.effective)
    return Judged(
        horizon_us=plain.horizon_us,
        horizon=horizon,
        frozen=frozen,
        before=normal,
        after=after,
        alpha=alpha,
        verdict=verdict,
        body_z=float(verdict.z[place] + shift / width),
    )


def _body_mean(horizon: Horizon, mean_rank: float, exceedance: float) -> float:
    """Return the mean rank of the energies without the outliers that are too many: each of them has the last rank."""
    excess = max(0.0, horizon.outliers - exceedance * horizon.events)
    last = 1 - 0.5 / 64
    return float((mean_rank * horizon.events - last * excess) / max(horizon.events - excess, 1.0))


def live(state: DriftState, judged: Iterable[Judged], resolve_after: int) -> DriftState:
    """Return the state after some horizons were judged: drifts begin, last, and end after enough clean horizons."""
    alarms, spans = dict(state.alarms), dict(state.spans)
    for each in judged:
        length, start_us = each.horizon_us, each.horizon.start_us
        known = alarms.get(length)
        if each.verdict.drifted:
            alarms[length] = Alarm(since_us=start_us if known is None else known.since_us)
        elif known is not None and known.clean + 1 < resolve_after:
            alarms[length] = replace(known, clean=known.clean + 1)
        elif known is not None:
            del alarms[length]
            kept = [span for span in spans.get(length, ()) if span[1] > start_us - (EXAMPLE_DAYS + 2) * DAY_US]
            spans[length] = [*kept, (known.since_us, start_us)]
    return replace(state, alarms=alarms, spans=spans)


def _enough(horizons: Sequence[Horizon]) -> list[Horizon]:
    """Return the horizons with enough events to be compared with the others."""
    typical = float(np.median([each.events for each in horizons])) if horizons else 0.0
    return [each for each in horizons if each.events >= LEAST_EVENTS * typical]


def _days_before(
    horizons: Mapping[int, Horizon], start_us: int, plain: FrozenBase, state: DriftState, statistics: Statistics
) -> Float64 | None:
    """Return the average means of the same time on the last two days without drift; None where there are none."""
    found = []
    for days in range(1, EXAMPLE_DAYS + 1):
        example = horizons.get(start_us - days * DAY_US)
        if example is None or example.events < LEAST_EVENTS * plain.base.typical_events:
            continue
        if not state.drifting(plain.horizon_us, example.start_us):
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


def state_of(stored: Mapping[str, Any]) -> DriftState:
    """Return the state that `state_to_json` wrote, or the first one."""
    return DriftState(
        base_from_us=stored.get("base_from_us"),
        waiting=stored.get("waiting", {}),
        alarms={int(length): Alarm(**alarm) for length, alarm in stored.get("alarms", {}).items()},
        spans={
            int(length): [(begin, end) for begin, end in spans] for length, spans in stored.get("spans", {}).items()
        },
    )


def base_to_json(base: Base) -> dict[str, Any]:
    """Return a base as JSON: floats are written so that they are read back to the bit."""
    return asdict(base) | {"mean": base.mean.tolist(), "deviation": base.deviation.tolist()}


def base_of(stored: Mapping[str, Any]) -> Base:
    """Return the base that `base_to_json` wrote."""
    arrays = {name: np.array(stored[name], np.float64) for name in ("mean", "deviation")}
    return Base(**{**stored, **arrays})
