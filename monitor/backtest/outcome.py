"""Back-test: what came of each cell: alerts, promised against realised, and against labels. Pure."""

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

if TYPE_CHECKING:
    import pandas as pd


FiredWindows = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One cell of the grid.

    `promised_per_week` is `alerts.false_alarms`, `realised_per_week` the incidents of the kinds that the promise is
    about (spike, slow_rise, drift), those that answer a burst left out; `alerts_per_day` counts incidents of all kinds.
    The rest needs labels and is None without: `bursts` with at least `min_outliers` labelled events, the share of them
    that an incident answers (`recall`; see `against`), the median time from a burst's first event to the end of the
    window that fired, the incidents that answer no burst, and the share of incidents that answer one (`precision`).
    `events_found` is the share of the labelled events that were outliers.
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
    """The outcome of every cell, over [begin_us, end_us) of event time.

    `memories` has what each cell decided, in the order of `cells`: its thresholds, windows and incidents.
    """

    stream: str
    begin_us: int
    end_us: int
    cells: Sequence[Outcome]
    memories: Sequence[MemoryStore]

    def rows(self) -> list[dict[str, Any]]:
        """Return the cells as plain values."""
        return [asdict(cell) for cell in self.cells]

    def to_frame(self) -> "pd.DataFrame":
        """Return the cells as a pandas frame, with a column for each kind of incident."""
        import pandas as pd  # noqa: PLC0415 - an extra: everything else works without pandas

        flat = [{**row, **row.pop("incidents")} for row in self.rows()]
        kinds = [kind.value for kind in Kind]
        return pd.DataFrame(flat).fillna(dict.fromkeys(kinds, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledBursts:
    """What the labels say: the bursts, and of single events how many there are."""

    bursts: Sequence[Burst]
    events: int | None = None


def compute_outcome(
    memory: MemoryStore,
    percentile: float,
    promise: Rate,
    known: LabelledBursts | None,
    *,
    size_us: int,
    slack_us: int,
    min_outliers: int,
    found_events: int | None = None,
) -> Outcome:
    """Return what came of a cell.

    Args:
        memory: What it decided.
        percentile: Its percentile.
        promise: Its promise.
        known: What the labels say.
        size_us: Length of a window.
        slack_us: How long before and after a burst an incident may open and still answer it.
        min_outliers: Labelled events that a burst has at least, to be one that a spike can show.
        found_events: How many of the labelled events were outliers.
    """
    judged = [window for window in memory.windows if window.judged]
    span_us = judged[-1].window_end_us - judged[0].window_start_us if judged else size_us
    promised = [life.fired_windows for life in memory.incidents if life.row.kind in BUDGETED_KINDS]
    asked = (
        [] if known is None else [each for each in known.bursts if each.events is None or each.events >= min_outliers]
    )
    answers = match_bursts(promised, asked, slack_us=slack_us, size_us=size_us)
    labelled = {} if known is None else _label_columns(answers, len(promised), len(asked), size_us)
    if known is not None and known.events and found_events is not None:
        labelled["events_found"] = found_events / known.events
    return Outcome(
        percentile=percentile,
        false_alarms=str(promise),
        windows=len(judged),
        events=sum(window.events for window in judged),
        outliers=sum(window.outliers for window in judged),
        incidents=dict(sorted(Counter(life.row.kind for life in memory.incidents).items())),
        alerts_per_day=len(memory.incidents) * DAY_US / span_us,
        promised_per_week=promise.per_week,
        realised_per_week=answers.unmatched * WEEK_US / span_us,
        **labelled,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BurstMatches:
    """How many incidents answer no burst, and after which time each burst that is answered was."""

    unmatched: int
    delays_us: Sequence[int]


def match_bursts(
    incidents: Sequence[FiredWindows], bursts: Sequence[Burst], *, slack_us: int, size_us: int
) -> BurstMatches:
    """Return what incidents say of bursts.

    An incident belongs to a burst where it fired in it, or within the slack after, and had not been open before it by
    more than the slack: what is open all the time says nothing of what comes.

    Args:
        incidents: The windows in which each fired, as [start, end) pairs in order.
        bursts: What was strange.
        slack_us: How long before and after a burst an incident may open and still answer it.
        size_us: Length of a window.
    """
    true = [fired for fired in incidents if any(_matches_burst(fired, burst, slack_us, size_us) for burst in bursts)]
    ends = [
        (
            burst,
            min(
                (end for fired in true for start, end in fired if _overlaps(start, end, burst, slack_us, size_us)),
                default=None,
            ),
        )
        for burst in bursts
    ]
    return BurstMatches(
        unmatched=len(incidents) - len(true), delays_us=[end - burst.start_us for burst, end in ends if end is not None]
    )


def _label_columns(answers: BurstMatches, incidents: int, asked: int, size_us: int) -> dict[str, Any]:
    delay_us = float(np.median(answers.delays_us)) if answers.delays_us else None
    return {
        "bursts": asked,
        "recall": len(answers.delays_us) / asked if asked else None,
        "delay_s": None if delay_us is None else delay_us / 1e6,
        "delay_windows": None if delay_us is None else delay_us / size_us,
        "false_incidents": answers.unmatched,
        "precision": 1 - answers.unmatched / incidents if incidents else None,
    }


def _matches_burst(fired: FiredWindows, burst: Burst, slack_us: int, size_us: int) -> bool:
    opened_us = fired[0][1] if fired else 0
    return opened_us > burst.start_us - slack_us and any(
        _overlaps(start_us, end_us, burst, slack_us, size_us) for start_us, end_us in fired
    )


def _overlaps(start_us: int, end_us: int, burst: Burst, slack_us: int, size_us: int) -> bool:
    return start_us < burst.end_us + slack_us and end_us > burst.start_us // size_us * size_us
