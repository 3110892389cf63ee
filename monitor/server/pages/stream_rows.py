"""The rows behind the charts of a stream: windows or roll-ups with the threshold in force, and marks. Only reads."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monitor.server.pages.formats import clock, words
from monitor.server.pages.stream_view import Span, choose_resolution
from monitor.statistics.count_band import BAND, count_quantile
from monitor.thresholds.tick import load_count_model
from storage.database.engine import Database
from storage.queries.rollups import IncidentMark, Rollup, read_incident_marks, read_rollups, read_windows
from storage.queries.stream_series import (
    Beyond,
    ThresholdStep,
    count_incidents_beyond,
    read_model_changes,
    read_threshold_steps,
    read_verdict_marks,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRow:
    """A window or a roll-up, with the threshold in force at its end and the band of outliers of clean windows.

    `low` and `high` are the 5% and 95% quantiles of the count model; None without events or a threshold.
    """

    rollup: Rollup
    step: ThresholdStep | None
    low: int | None
    high: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The rows of a time. `resolution_us` is the length of a roll-up; None for single windows."""

    rows: Sequence[SeriesRow]
    steps: Sequence[ThresholdStep]
    resolution_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A mark on the time axis of a chart.

    Attributes:
        kind: `critical` or `warning` for incidents, `model`, `verdict`, `held` or `contested`.
        at_us: Its time.
        end_us: Its end; None for a point in time and for open incidents.
        text: Its meaning.
        href: The page of the incident or of the models; None without one.
        label: A short name for a list of links.
    """

    kind: str
    at_us: int
    end_us: int | None
    text: str
    href: str | None = None
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """The marks of a time, and the incidents beyond it."""

    shown: Sequence[Mark]
    beyond: Beyond


def read_series(db: Database, stream_id: int, window_us: int, span: Span, model: int | None = None) -> Series:
    """Return the rows of a time, at a resolution for a chart.

    Args:
        db: The database.
        stream_id: The stream.
        window_us: Length of a window.
        span: The time.
        model: Version of the model that the rows are restricted to; None for all.
    """
    resolution_us = choose_resolution(span, window_us)
    bounds = {"from_us": span.from_us, "until_us": span.until_us}
    with db.read() as conn:
        if resolution_us is None:
            found = read_windows(conn, stream_id, **bounds)
        else:
            found = read_rollups(conn, stream_id, resolution_us=resolution_us, **bounds)
        # The newest rows are finer than the resolution, and so are their thresholds.
        fine_us = _end_of_coarse(found, resolution_us, span)
        steps = read_threshold_steps(
            conn, stream_id, from_us=span.from_us, until_us=fine_us, spacing_us=resolution_us or 1
        )
        newest = read_threshold_steps(conn, stream_id, from_us=fine_us, until_us=span.until_us)
        known = {step.valid_from_us for step in steps}
        steps += [step for step in newest if step.valid_from_us not in known]
        steps.sort(key=lambda step: step.valid_from_us)
    rollups = [row for row in found if model is None or row.model_version == model]
    return Series(rows=_join(rollups, steps), steps=steps, resolution_us=resolution_us)


def _end_of_coarse(found: Sequence[Rollup], resolution_us: int | None, span: Span) -> int:
    """Return the end of the last row of the full length, up to which a threshold in each row is enough."""
    if resolution_us is None:
        return span.from_us
    full = [row.end_us for row in found if row.end_us - row.start_us >= resolution_us]
    return max(full, default=span.from_us)


def _join(rollups: Sequence[Rollup], steps: Sequence[ThresholdStep]) -> list[SeriesRow]:
    starts_us = [step.valid_from_us for step in steps]
    # A threshold begins with a window, so the one in force before the end of a window is that of the window.
    places = [bisect_right(starts_us, row.end_us - 1) - 1 for row in rollups]
    in_force = [steps[place] if place >= 0 else None for place in places]
    means = np.array([row.expected or 0.0 for row in rollups], np.float64)
    ratios = np.array([_variance_ratio(step, row.events) for step, row in zip(in_force, rollups, strict=True)])
    low, high = (count_quantile(means, ratios, level).tolist() for level in BAND)
    return [
        SeriesRow(
            rollup=row,
            step=step,
            low=low[i] if step is not None and row.expected is not None else None,
            high=high[i] if step is not None and row.expected is not None else None,
        )
        for i, (row, step) in enumerate(zip(rollups, in_force, strict=True))
    ]


def _variance_ratio(step: ThresholdStep | None, events: int) -> float:
    if step is None or "law" not in step.details:
        return 1.0
    return load_count_model(step.details).variance_ratio(events)


def read_marks(db: Database, stream_id: int, span: Span, steps: Sequence[ThresholdStep]) -> Marks:
    """Return the marks of a time: periods without a new threshold first, then incidents, models and verdicts."""
    bounds = {"from_us": span.from_us, "until_us": span.until_us}
    with db.read() as conn:
        incidents = read_incident_marks(conn, [stream_id], **bounds)
        models = read_model_changes(conn, stream_id, **bounds)
        verdicts = read_verdict_marks(conn, stream_id, **bounds)
        beyond = count_incidents_beyond(conn, stream_id, **bounds)
    shown = [
        *_periods(steps, span),
        *(_incident_mark(each, span) for each in incidents),
        *(
            Mark(
                kind="model",
                at_us=each.at_us,
                end_us=None,
                text=f"{clock(each.at_us, beside_us=span.until_us)}: model {each.version} became active",
                label=f"model {each.version}",
            )
            for each in models
        ),
        *(
            Mark(
                kind="verdict",
                at_us=each.at_us,
                end_us=None,
                text=f"{clock(each.at_us, beside_us=span.until_us)}: {words(each.verb)} by {each.who}, "
                f"incident {each.incident_id}",
                href=f"/incidents/{each.incident_id}",
                label=f"verdict on {each.incident_id}",
            )
            for each in verdicts
        ),
    ]
    return Marks(shown=shown, beyond=beyond)


def _incident_mark(incident: IncidentMark, span: Span) -> Mark:
    state = "open" if incident.end_us is None else "resolved"
    if incident.verdict is not None:
        state += f", {words(incident.verdict)}"
    return Mark(
        kind="critical" if incident.severity == "critical" else "warning",
        at_us=incident.start_us,
        end_us=incident.end_us if incident.kind == "spike" else None,
        text=f"{clock(incident.start_us, beside_us=span.until_us)}: {words(incident.kind)}, incident {incident.id}, "
        f"{state}",
        href=f"/incidents/{incident.id}",
        label=str(incident.id),
    )


def _periods(steps: Sequence[ThresholdStep], span: Span) -> list[Mark]:
    """Return the periods in which ticks repeated their threshold, and those in which the reference guards it."""
    marks: list[Mark] = []
    for kind, words_ in (("held", "the threshold is held"), ("contested", "look-back and reference disagree")):
        begin_us: int | None = None
        reason = ""
        for step in [*steps, None]:
            active = step is not None and (step.held is not None if kind == "held" else step.is_contested)
            if active and begin_us is None and step is not None:
                begin_us, reason = (
                    max(step.valid_from_us, span.from_us),
                    step.held or "the reference guards the threshold",
                )
            elif not active and begin_us is not None:
                end_us = span.until_us if step is None else step.valid_from_us
                text = (
                    f"{clock(begin_us, beside_us=span.until_us)} to {clock(end_us, beside_us=span.until_us)}: "
                    f"{words_}: {reason}"
                )
                marks.append(Mark(kind=kind, at_us=begin_us, end_us=end_us, text=text))
                begin_us = None
    return marks
