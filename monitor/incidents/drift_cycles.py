"""The drift test over whole cycles: local days or weeks. Pure functions.

A cycle is compared with the median of the cycles before it. The median follows a lasting change by itself: it has moved
when more than half of its cycles have changed. The deviation is that of the same differences in the past, so that it
includes the usual changes of the level, and those between workdays and weekends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from config.time_format import DAY_US, WEEK_US
from monitor.incidents.drift_days import Cycle
from monitor.incidents.drift_horizons import HorizonResult, energy_body_z
from monitor.incidents.drift_test import FIRST_VERDICT_CYCLES, MIN_EVENT_SHARE, DriftVerdict, decide_drift
from monitor.statistics.drift_means import DriftStatistics
from monitor.statistics.training_profile import Float64

_TOLD_US = 3 * WEEK_US
"""Longest time before a cycle whose values are told: samples of windows are kept for four weeks by default."""

BASE_CYCLES = 7
"""Number of cycles in the median. Seven days hold each day of the week once."""

MIN_BASE_CYCLES = 2
"""Number of cycles before the first difference. With fewer, it would be that of two neighbours."""

HISTORY_CYCLES = 28
"""Maximum number of past differences in the deviation."""

MIN_HISTORY = FIRST_VERDICT_CYCLES - 1 - MIN_BASE_CYCLES
"""Minimum number of past differences: with 6 degrees of freedom the threshold is within the range of ranks."""

MAX_DOF = 6
"""Largest number of degrees of freedom. The tails of daily means of real streams are heavier than those of a Gaussian.

With 28 differences as 27 degrees of freedom, servers had 0.37 false alarms a week at 0.25 promised, with 6 of them 0.21
(`benchmarks/drift_on_streams.py`).
"""

KEPT_CYCLES = HISTORY_CYCLES + BASE_CYCLES + 1
"""Number of cycles that a verdict uses, the tested one included."""

MIN_HOUR_SHARE = 0.875
"""Minimum number of hours with events of a cycle, as a share of the usual number.

A cycle with a long pause has another mix of times of day. The share leaves out weeks without one of their days.
"""

MIN_DEVIATION = 0.02
"""Smallest deviation of a difference, in the largest deviation that one event can have in training.

The ranks of a feature with few values vary little in training. In its own deviations, chance would be a large change.
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CycleTest:
    """The cycles of a stream that can be compared with each other, as means and differences.

    Attributes:
        cycles: Comparable cycles in order, (N,); the last one is tested.
        means: Their means, (N, J).
        base: Median of up to `BASE_CYCLES` cycles before the last one, (J,).
        differences: Difference of each cycle since the third from the median of the cycles before it, (N - 2, J).
    """

    cycles: Sequence[Cycle]
    means: Float64
    base: Float64
    differences: Float64


def prepare_cycles(cycles: Sequence[Cycle], cycle_us: int, statistics: DriftStatistics) -> CycleTest | str:
    """Return the last of some cycles as it is tested, or the reason why it has no verdict.

    Args:
        cycles: Whole cycles of one model in order.
        cycle_us: Nominal length of a cycle.
        statistics: Statistics of the model.
    """
    recent = cycles[-KEPT_CYCLES:]
    comparable = _select_comparable(recent)
    if len(comparable) < FIRST_VERDICT_CYCLES:
        return explain_waiting(len(comparable), cycle_us)
    if comparable[-1] is not recent[-1]:
        return "the last cycle has too few hours or events for a comparison"
    events = np.array([each.horizon.events for each in comparable], np.int64)
    means = statistics.means(np.array([each.horizon.sums for each in comparable]), events[:, None])
    bases = [np.median(means[max(0, at - BASE_CYCLES) : at], axis=0) for at in range(MIN_BASE_CYCLES, len(means))]
    return CycleTest(cycles=comparable, means=means, base=bases[-1], differences=means[MIN_BASE_CYCLES:] - bases)


def explain_waiting(cycles: int, cycle_us: int) -> str:
    """Return the reason why this number of whole cycles gives no verdict yet."""
    return f"{cycles} of the {FIRST_VERDICT_CYCLES} whole {_unit(cycle_us)} that a verdict needs"


def judge_cycle(
    test: CycleTest,
    cycle_us: int,
    shrunk: Mapping[int, float],
    statistics: DriftStatistics,
    *,
    alpha: float,
    min_effect: float,
    exceedance: float,
    raised: float = 1.0,
) -> HorizonResult:
    """Test the last of some cycles.

    Args:
        test: The cycles.
        cycle_us: Nominal length of a cycle.
        shrunk: Factors on the differences of earlier cycles that drifted, by their start: see `shrink_factor`.
        statistics: Statistics of the model.
        alpha: False-alarm probability of the cycle.
        min_effect: Smallest change that counts as drift, in training deviations.
        exceedance: Share of normal events above the threshold.
        raised: Factor on the threshold of |z|.
    """
    past = test.differences[:-1][-HISTORY_CYCLES:]
    factors = [shrunk.get(each.horizon.start_us, 1.0) for each in test.cycles[-1 - len(past) : -1]]
    cycle, after, units = test.cycles[-1], test.means[-1], statistics.units(test.base)
    events = cycle.horizon.events
    deviation = np.maximum(
        np.sqrt(np.mean((past * np.array(factors)[:, None]) ** 2, axis=0)), MIN_DEVIATION * statistics.largest_units()
    )
    shares = (BASE_CYCLES * test.base + after) / (BASE_CYCLES + 1)
    deviation = np.maximum(deviation, statistics.sampling_deviations(shares, (1 + 1 / BASE_CYCLES) / events))
    change, dof = test.differences[-1], min(len(past) - 1, MAX_DOF)
    verdict = decide_drift(
        change,
        deviation,
        units,
        dof=dof,
        alpha=alpha,
        min_effect=min_effect,
        raised=raised,
        tested=statistics.n_without_pairs,
    )
    width = float(deviation[statistics.energy_rank_index])
    return HorizonResult(
        horizon_us=cycle_us,
        horizon=cycle.horizon,
        end_us=cycle.end_us,
        before=test.base,
        after=after,
        alpha=alpha,
        verdict=verdict,
        body_z=energy_body_z(cycle.horizon, after, verdict, statistics, exceedance, width),
        compared=f"the {_unit(cycle_us)} before",
        base={
            "against": f"{_unit(cycle_us)} before",
            "horizons": min(BASE_CYCLES, len(test.cycles) - 1),
            "history": len(past),
            "degrees_of_freedom": dof,
        },
        raised=raised,
        before_us=(cycle.horizon.start_us - min(BASE_CYCLES * cycle_us, _TOLD_US), cycle.horizon.start_us),
    )


def shrink_factor(verdict: DriftVerdict) -> float:
    """Return the factor that brings the differences of a drifted cycle back to the threshold.

    Left as it is, a large change would hide further ones for `HISTORY_CYCLES` cycles. Left out, the deviation would
    never learn that a level wanders.
    """
    return min(1.0, verdict.z_threshold / float(np.abs(verdict.z[list(verdict.drifted)]).max()))


def is_same_level(test: CycleTest, since_us: int, result: HorizonResult) -> bool:
    """Return True if the drifted statistics of the tested cycle are where an earlier, drifted cycle had them.

    The difference of two cycles varies by at most sqrt(2) times as much as that from a median.

    Args:
        test: The cycles.
        since_us: Start of the earlier cycle.
        result: Result of the tested cycle.
    """
    at = next((at for at, each in enumerate(test.cycles) if each.horizon.start_us == since_us), None)
    if at is None:
        return False
    distance = np.abs(test.means[-1] - test.means[at]) / (np.sqrt(2) * result.verdict.deviation)
    return bool((distance <= result.verdict.z_threshold)[list(result.verdict.drifted)].all())


def _unit(cycle_us: int) -> str:
    return "days" if cycle_us == DAY_US else "weeks"


def _select_comparable(cycles: Sequence[Cycle]) -> list[Cycle]:
    """Return the cycles with enough hours and events for a comparison with the others."""
    if not cycles:
        return []
    events = MIN_EVENT_SHARE * float(np.median([each.horizon.events for each in cycles]))
    hours = MIN_HOUR_SHARE * float(np.median([each.hours for each in cycles]))
    return [each for each in cycles if each.horizon.events >= events and each.hours >= hours]
