"""The life of drift alarms: told once, then over, or lasting until they are the new base. Pure functions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from config.time_format import DAY_US
from monitor.incidents.drift_cycles import KEPT_CYCLES, CycleTest, is_same_level, shrink_factor
from monitor.incidents.drift_horizons import HorizonResult
from monitor.incidents.drift_state import DriftAlarm, DriftState
from monitor.incidents.drift_test import CYCLES_US

RAISE = 0.3
"""Logarithm of the factor by which an alarm raises the threshold of its length.

It falls back by `RAISE` in the time in which one alarm is promised. So the number of alarms in a time is at most the
promised one, and log(limit / threshold) / RAISE more, for any stream: a limit beyond the range of ranks stops all
alarms (Gibbs and Candes 2021, adaptive conformal inference).
"""

LASTING_US = 3 * DAY_US
"""Time after which a change over a short horizon is the base, if its horizons are no baseline before."""


class Ending(StrEnum):
    """The reasons for which a drift ends."""

    OVER = "over"
    REBASED = "rebased"
    UNTESTED = "untested"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AlarmUpdate:
    """The state after some horizons were tested, the results to tell, and the reasons of the drifts that ended."""

    state: DriftState
    told: Sequence[HorizonResult]
    endings: Sequence[Ending]


def advance_horizon_alarm(state: DriftState, result: HorizonResult, resolve_after: int) -> AlarmUpdate:
    """Return the state after a short horizon: a drift begins, continues, or ends after enough clean horizons."""
    length, alarm = result.horizon_us, state.alarms.get(result.horizon_us)
    drifted = bool(result.verdict.drifted)
    state = _adjust_threshold(state, result, is_new=drifted and alarm is None)
    if drifted:
        since_us = result.horizon.start_us if alarm is None else alarm.since_us
        return AlarmUpdate(state=_with_alarm(state, length, DriftAlarm(since_us=since_us)), told=[result], endings=[])
    if alarm is None:
        return AlarmUpdate(state=state, told=[], endings=[])
    if alarm.clean + 1 < resolve_after:
        return AlarmUpdate(state=_with_alarm(state, length, replace(alarm, clean=alarm.clean + 1)), told=[], endings=[])
    return AlarmUpdate(state=drop_alarm(state, length), told=[], endings=[Ending.OVER])


def advance_cycle_alarm(state: DriftState, result: HorizonResult, test: CycleTest) -> AlarmUpdate:
    """Return the state after a cycle.

    A drift is told once. If the next cycle has the same level, the change lasts, and the drift is settled: the median
    of the base follows within a week. A further change of level is told again. A cycle without drift ends it.
    """
    length, alarm, start_us = result.horizon_us, state.alarms.get(result.horizon_us), result.horizon.start_us
    if not result.verdict.drifted:
        state = _adjust_threshold(state, result, is_new=False)
        was_open = alarm is not None and not alarm.settled
        return AlarmUpdate(state=drop_alarm(state, length), told=[], endings=[Ending.OVER] if was_open else [])
    oldest_us = start_us - (KEPT_CYCLES + 1) * length
    kept = {start: factor for start, factor in state.shrunk.items() if start > oldest_us}
    state = replace(state, shrunk=kept | {start_us: shrink_factor(result.verdict)})
    if alarm is not None and alarm.level_us is not None and is_same_level(test, alarm.level_us, result):
        state = _adjust_threshold(state, result, is_new=False)
        return AlarmUpdate(
            state=_with_alarm(state, length, replace(alarm, settled=True)),
            told=[],
            endings=[] if alarm.settled else [Ending.REBASED],
        )
    since_us = start_us if alarm is None or alarm.settled else alarm.since_us
    state = _adjust_threshold(state, result, is_new=since_us == start_us)
    return AlarmUpdate(
        state=_with_alarm(state, length, DriftAlarm(since_us=since_us, level_us=start_us)), told=[result], endings=[]
    )


def drop_alarm(state: DriftState, length: int) -> DriftState:
    """Return the state without the drift of a length."""
    return replace(state, alarms={each: alarm for each, alarm in state.alarms.items() if each != length})


def drop_untested(state: DriftState, tested: Sequence[int]) -> AlarmUpdate:
    """Return the state without drifts of lengths that are not tested any more, and those that a former version found.

    Args:
        state: The state after the tests of a day.
        tested: Lengths that are tested.
    """
    dropped = [
        length
        for length, alarm in state.alarms.items()
        if length not in tested or (length in CYCLES_US and alarm.level_us is None)
    ]
    was_open = any(not state.alarms[length].settled for length in dropped)
    for length in dropped:
        state = drop_alarm(state, length)
    return AlarmUpdate(state=state, told=[], endings=[Ending.UNTESTED] if was_open else [])


def restart_base(state: DriftState, length: int, from_us: int) -> DriftState:
    """Return the state in which the baseline of a short horizon begins at a time: a lasting change is the base."""
    return replace(drop_alarm(state, length), starts={**state.starts, length: from_us})


def _with_alarm(state: DriftState, length: int, alarm: DriftAlarm) -> DriftState:
    return replace(state, alarms={**state.alarms, length: alarm})


def _adjust_threshold(state: DriftState, result: HorizonResult, *, is_new: bool) -> DriftState:
    """Raise the threshold of a length at a new alarm, and let it fall back at the promised rate of alarms."""
    length = result.horizon_us
    raised = max(0.0, state.raised.get(length, 0.0) - RAISE * result.alpha) + RAISE * is_new
    others = {each: log_factor for each, log_factor in state.raised.items() if each != length}
    return replace(state, raised=others | ({length: raised} if raised else {}))


def raised_factor(state: DriftState, length: int) -> float:
    """Return the factor on the threshold of a length by earlier alarms."""
    return math.exp(state.raised.get(length, 0.0))
