"""Outcome of each cell: incidents, budgeted and realised false alarms, and comparison with labels. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from config.time_format import DAY_US, WEEK_US
from config.units import Rate
from monitor.backtest.labels import Burst
from monitor.backtest.memory_store import MemoryStore
from monitor.control_plane.control_plane import BUDGETED_KINDS
from monitor.incidents.lifecycle import Kind
from storage.control.refits import RefitRow

if TYPE_CHECKING:
    import pandas as pd


FiredWindows = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Outcome of one cell.

    Attributes:
        percentile: Percentile of the cell.
        false_alarms: False-alarm budget of the cell, such as "1/week".
        windows: Number of judged windows.
        events: Number of events in them.
        outliers: Number of outliers in them.
        incidents: Number of incidents by kind.
        alerts_per_day: Incidents of all kinds per day.
        promised_per_week: The false-alarm budget per week.
        realised_per_week: Incidents per week of the kinds under the budget (spike, slow_rise, drift) that match no
            burst.
        bursts: Bursts with at least `min_outliers` labelled events. This and all further values are None without
            labels.
        recall: Share of the bursts that an incident matches; see `match_bursts`.
        delay_s: Median time from a burst's first event to the end of the window that fired.
        delay_windows: The delay in windows.
        false_incidents: Incidents under the budget that match no burst.
        precision: Share of the incidents under the budget that match a burst.
        events_found: Share of the labelled events that were outliers.
    """

    percentile: float
    false_alarms: str
    windows: int
    events: int
    outliers: int
    incidents: Mapping[str, int]
    alerts_per_day: float
    promised_per_week: float
    realised_per_week: float
    bursts: int | None = None
    recall: float | None = None
    delay_s: float | None = None
    delay_windows: float | None = None
    false_incidents: int | None = None
    precision: float | None = None
    events_found: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtest:
    """Outcomes of all cells over [begin_us, end_us) of event time.

    `memories` holds the thresholds, windows and incidents of each cell, `refits` its refits, in the order of `cells`.
    """

    stream: str
    begin_us: int
    end_us: int
    cells: Sequence[Outcome]
    memories: Sequence[MemoryStore]
    refits: Sequence[Sequence[RefitRow]] = ()

    def rows(self) -> list[dict[str, Any]]:
        """Return the outcomes as dictionaries."""
        return [asdict(cell) for cell in self.cells]

    def to_frame(self) -> "pd.DataFrame":
        """Return the outcomes as a pandas frame with a column for each kind of incident."""
        import pandas as pd  # noqa: PLC0415 - pandas is an optional extra

        flat = [{**row, **row.pop("incidents")} for row in self.rows()]
        kinds = [kind.value for kind in Kind]
        return pd.DataFrame(flat).fillna(dict.fromkeys(kinds, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledBursts:
    """Labelled bursts, and the number of labelled events if events are labelled."""

    bursts: Sequence[Burst]
    events: int | None = None


def compute_outcome(
    memory: MemoryStore,
    percentile: float,
    budget: Rate,
    labelled: LabelledBursts | None,
    *,
    size_us: int,
    slack_us: int,
    min_outliers: int,
    found_events: int | None = None,
) -> Outcome:
    """Compute the outcome of a cell.

    Args:
        memory: The store of the cell.
        percentile: The percentile of the cell.
        budget: The false-alarm budget of the cell.
        labelled: The labelled bursts, None without labels.
        size_us: Length of a window.
        slack_us: Longest distance in time between a burst and an incident that matches it.
        min_outliers: Fewest labelled events of a burst that a spike can detect; smaller bursts are ignored.
        found_events: Number of labelled events that were outliers.
    """
    judged = [window for window in memory.windows if window.judged]
    span_us = judged[-1].window_end_us - judged[0].window_start_us if judged else size_us
    fired_windows = [life.fired_windows for life in memory.incidents if life.row.kind in BUDGETED_KINDS]
    bursts = (
        []
        if labelled is None
        else [each for each in labelled.bursts if each.events is None or each.events >= min_outliers]
    )
    matches = match_bursts(fired_windows, bursts, slack_us=slack_us, size_us=size_us)
    comparison = {} if labelled is None else _label_columns(matches, len(fired_windows), len(bursts), size_us)
    if labelled is not None and labelled.events and found_events is not None:
        comparison["events_found"] = found_events / labelled.events
    return Outcome(
        percentile=percentile,
        false_alarms=str(budget),
        windows=len(judged),
        events=sum(window.events for window in judged),
        outliers=sum(window.outliers for window in judged),
        incidents=dict(sorted(Counter(life.row.kind for life in memory.incidents).items())),
        alerts_per_day=len(memory.incidents) * DAY_US / span_us,
        promised_per_week=budget.per_week,
        realised_per_week=matches.unmatched * WEEK_US / span_us,
        **comparison,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BurstMatches:
    """Number of incidents that match no burst, and the delay of each matched burst."""

    unmatched: int
    delays_us: Sequence[int]


def match_bursts(
    incidents: Sequence[FiredWindows], bursts: Sequence[Burst], *, slack_us: int, size_us: int
) -> BurstMatches:
    """Match incidents with bursts.

    An incident matches a burst if it fired during the burst or within the slack after it, and opened at most the slack
    before it. An incident that was open long before a burst is no evidence of it.

    Args:
        incidents: The fired windows of each incident, as [start, end) pairs in order.
        bursts: The labelled bursts.
        slack_us: Longest distance in time between a burst and an incident that matches it.
        size_us: Length of a window.
    """
    matched = [fired for fired in incidents if any(_matches_burst(fired, burst, slack_us, size_us) for burst in bursts)]
    ends = [
        (
            burst,
            min(
                (end for fired in matched for start, end in fired if _overlaps(start, end, burst, slack_us, size_us)),
                default=None,
            ),
        )
        for burst in bursts
    ]
    return BurstMatches(
        unmatched=len(incidents) - len(matched),
        delays_us=[end - burst.start_us for burst, end in ends if end is not None],
    )


def _label_columns(matches: BurstMatches, incidents: int, bursts: int, size_us: int) -> dict[str, Any]:
    delay_us = float(np.median(matches.delays_us)) if matches.delays_us else None
    return {
        "bursts": bursts,
        "recall": len(matches.delays_us) / bursts if bursts else None,
        "delay_s": None if delay_us is None else delay_us / 1e6,
        "delay_windows": None if delay_us is None else delay_us / size_us,
        "false_incidents": matches.unmatched,
        "precision": 1 - matches.unmatched / incidents if incidents else None,
    }


def _matches_burst(fired: FiredWindows, burst: Burst, slack_us: int, size_us: int) -> bool:
    opened_us = fired[0][1] if fired else 0
    return opened_us > burst.start_us - slack_us and any(
        _overlaps(start_us, end_us, burst, slack_us, size_us) for start_us, end_us in fired
    )


def _overlaps(start_us: int, end_us: int, burst: Burst, slack_us: int, size_us: int) -> bool:
    return start_us < burst.end_us + slack_us and end_us > burst.start_us // size_us * size_us
