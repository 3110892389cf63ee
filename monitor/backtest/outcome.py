"""Back-test: what came of each cell: alerts, promised against realised, and against labels. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from config.units import Rate
from monitor.backtest.labels import Burst
from monitor.backtest.memory import Life, Memory
from monitor.control_plane.control import PROMISED
from monitor.incidents import Kind
from monitor.spikes import DAY_US, WEEK_US

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One cell of the grid.

    `promised_per_week` is `alerts.false_alarms`, `realised_per_week` the incidents of the kinds that the promise is
    about (spike, slow_rise, drift), those that answer a labelled burst left out; `alerts_per_day` counts incidents of
    all kinds. The rest needs labels and is None without: `bursts` with at least `min_outliers` labelled events, the
    share of them in which an incident fired (`recall`), the median time from a burst's first event to the end of the
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
    memories: Sequence[Memory]

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
class Known:
    """What the labels say: the bursts, and of single events how many there are."""

    bursts: Sequence[Burst]
    events: int | None = None


def outcome_of(
    memory: Memory,
    percentile: float,
    promise: Rate,
    known: Known | None,
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
        slack_us: How long after a burst an incident still answers it.
        min_outliers: Labelled events that a burst has at least, to be one that a spike can show.
        found_events: How many of the labelled events were outliers.
    """
    judged = [window for window in memory.windows if window.judged]
    span_us = judged[-1].window_end_us - judged[0].window_start_us if judged else size_us
    promised = [life for life in memory.lives if life.row.kind in PROMISED]
    bursts = () if known is None else known.bursts
    false = [life for life in promised if not any(_answers(life, burst, slack_us, size_us) for burst in bursts)]
    labelled = {} if known is None else _against(known, promised, false, size_us, slack_us, min_outliers)
    if known is not None and known.events and found_events is not None:
        labelled["events_found"] = found_events / known.events
    return Outcome(
        percentile=percentile,
        false_alarms=str(promise),
        windows=len(judged),
        events=sum(window.events for window in judged),
        outliers=sum(window.outliers for window in judged),
        incidents=dict(sorted(Counter(life.row.kind for life in memory.lives).items())),
        alerts_per_day=len(memory.lives) * DAY_US / span_us,
        promised_per_week=promise.per_week,
        realised_per_week=len(false) * WEEK_US / span_us,
        **labelled,
    )


def _against(
    known: Known, lives: Sequence[Life], false: Sequence[Life], size_us: int, slack_us: int, min_outliers: int
) -> dict[str, Any]:
    asked = [burst for burst in known.bursts if burst.events is None or burst.events >= min_outliers]
    ends = [_answered_at(lives, burst, slack_us, size_us) for burst in asked]
    delays_us = [end - burst.start_us for end, burst in zip(ends, asked, strict=True) if end is not None]
    return {
        "bursts": len(asked),
        "recall": len(delays_us) / len(asked) if asked else None,
        "delay_s": float(np.median(delays_us)) / 1e6 if delays_us else None,
        "delay_windows": float(np.median(delays_us)) / size_us if delays_us else None,
        "false_incidents": len(false),
        "precision": 1 - len(false) / len(lives) if lives else None,
    }


def _answered_at(lives: Sequence[Life], burst: Burst, slack_us: int, size_us: int) -> int | None:
    """Return the end of the first window in which an incident fired over a burst; None where none did."""
    ends = [
        end_us
        for life in lives
        for start_us, end_us in life.fired
        if _overlaps(start_us, end_us, burst, slack_us, size_us)
    ]
    return min(ends, default=None)


def _answers(life: Life, burst: Burst, slack_us: int, size_us: int) -> bool:
    return any(_overlaps(start_us, end_us, burst, slack_us, size_us) for start_us, end_us in life.fired)


def _overlaps(start_us: int, end_us: int, burst: Burst, slack_us: int, size_us: int) -> bool:
    return start_us < burst.end_us + slack_us and end_us > burst.start_us // size_us * size_us
