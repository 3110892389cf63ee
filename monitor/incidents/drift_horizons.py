"""Baselines and verdicts of the drift test over horizons without a season. Pure functions.

A horizon is an interval of event time of fixed length, aligned to its multiples. Its means are compared with a baseline
of earlier horizons, which is frozen when at least 30 of them are independent. A course of the day leaves few
independent horizons in a day, so that a stream with a season has no such baseline; whole days are compared instead
(`drift_cycles.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from config.time_format import DAY_US, format_utc
from monitor.incidents.drift_test import (
    MIN_EVENT_SHARE,
    DriftBaseline,
    DriftVerdict,
    baseline_problem,
    explain_dependence,
    fit_baseline,
    judge_drift,
)
from monitor.statistics.drift_means import DriftStatistics
from monitor.statistics.training_profile import N_BINS, Float64, Int64

_MAX_LEARNING_HORIZONS = 1_000
_MIN_LEARNING_HORIZONS = 60
_LEARNING_US = 14 * DAY_US


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
    """The baseline of one horizon length, of horizons since `from_us`."""

    horizon_us: int
    from_us: int
    frozen_at_us: int
    baseline: DriftBaseline


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HorizonResult:
    """The result of one tested horizon or cycle, with the verdict.

    `horizon_us` is the nominal length, and `end_us` the end: a local day may have 23 or 25 hours. `before` are the
    normal means. `compared` names the intervals that these come from, and `base` describes them as JSON. `body_z` is
    the z of the energies without the excess outliers. `raised` is the factor on the threshold by earlier alarms.
    `before_us` is the interval of event time that the normal means come from.
    """

    horizon_us: int
    horizon: Horizon
    end_us: int
    before: Float64
    after: Float64
    alpha: float
    verdict: DriftVerdict
    body_z: float
    compared: str
    base: Mapping[str, Any]
    raised: float
    before_us: tuple[int, int]


def learning_span_us(horizon_us: int) -> int:
    """Return the time within which the horizons of a baseline must lie. Older horizons are not kept."""
    horizons = max(_LEARNING_US // horizon_us, _MIN_LEARNING_HORIZONS)
    return min(horizons, _MAX_LEARNING_HORIZONS) * horizon_us


def learn_baseline(
    horizon_us: int, horizons: Sequence[Horizon], statistics: DriftStatistics, *, from_us: int, until_us: int
) -> FrozenBaseline | str:
    """Return the baseline of the means, or the reason why these horizons are none yet.

    Args:
        horizon_us: Length of the horizons.
        horizons: Horizons with events since the baseline may begin, in order.
        statistics: Statistics of the model.
        from_us: Event time at which the baseline may begin.
        until_us: Event time up to which the stream is judged.
    """
    comparable = _select_comparable(horizons)
    problem = baseline_problem(np.array([each.start_us for each in comparable], np.int64), horizon_us=horizon_us)
    if problem is not None:
        return problem
    events = np.array([each.events for each in comparable], np.int64)
    means = statistics.means(np.array([each.sums for each in comparable]), events[:, None])
    dependence = explain_dependence(means)
    if dependence is not None:
        return dependence
    baseline = fit_baseline(means, events, statistics.units(means.mean(axis=0)))
    return FrozenBaseline(horizon_us=horizon_us, from_us=from_us, frozen_at_us=until_us, baseline=baseline)


def judge_horizon(
    horizon: Horizon,
    frozen: FrozenBaseline,
    statistics: DriftStatistics,
    *,
    alpha: float,
    min_effect: float,
    exceedance: float,
    raised: float = 1.0,
) -> HorizonResult | None:
    """Test one horizon. None if it has too few events.

    Args:
        horizon: The horizon.
        frozen: Baseline of the means.
        statistics: Statistics of the model.
        alpha: False-alarm probability of the horizon.
        min_effect: Smallest change that counts as drift, in training deviations.
        exceedance: Share of normal events above the threshold.
        raised: Factor on the threshold of |z|.
    """
    baseline = frozen.baseline
    after = statistics.means(horizon.sums, horizon.events)
    samples = baseline.blocks
    shares = (samples * baseline.mean + after) / (samples + 1)
    verdict = judge_drift(
        baseline,
        after,
        horizon.events,
        statistics.units(baseline.mean),
        alpha=alpha,
        min_effect=min_effect,
        least_deviation=statistics.sampling_deviations(shares, (1 + 1 / samples) / horizon.events),
        raised=raised,
    )
    if verdict is None:
        return None
    width = baseline.deviation[statistics.energy_rank_index] * np.sqrt(1 + 1 / baseline.effective)
    return HorizonResult(
        horizon_us=frozen.horizon_us,
        horizon=horizon,
        end_us=horizon.start_us + frozen.horizon_us,
        before=baseline.mean,
        after=after,
        alpha=alpha,
        verdict=verdict,
        body_z=energy_body_z(horizon, after, verdict, statistics, exceedance, width),
        compared=f"the {baseline.blocks} horizons before {format_utc(frozen.frozen_at_us)}",
        base={
            "against": "base",
            "frozen_at": format_utc(frozen.frozen_at_us),
            "horizons": baseline.blocks,
            "autocorrelation": baseline.rho,
            "effective_horizons": baseline.effective,
            "degrees_of_freedom": baseline.dof,
        },
        raised=raised,
        before_us=(frozen.from_us, frozen.frozen_at_us),
    )


def energy_body_z(
    horizon: Horizon,
    after: Float64,
    verdict: DriftVerdict,
    statistics: DriftStatistics,
    exceedance: float,
    deviation: float,
) -> float:
    """Return the z of the mean rank of the energies without the excess outliers, each of which has the last rank."""
    index = statistics.energy_rank_index
    excess = max(0.0, horizon.outliers - exceedance * horizon.events)
    last = 1 - 0.5 / N_BINS
    body = (after[index] * horizon.events - last * excess) / max(horizon.events - excess, 1.0)
    return float(verdict.z[index] + (body - after[index]) / deviation)


def _select_comparable(horizons: Sequence[Horizon]) -> list[Horizon]:
    """Return the horizons with enough events for a comparison with the others."""
    typical = float(np.median([each.events for each in horizons])) if horizons else 0.0
    return [each for each in horizons if each.events >= MIN_EVENT_SHARE * typical]
