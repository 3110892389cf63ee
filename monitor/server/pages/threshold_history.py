"""The thresholds of a stream over time, by their method, with the 90% interval."""

from collections.abc import Sequence

from monitor.server.pages import plot
from monitor.server.pages.formats import clock, duration, iso, number
from monitor.server.pages.panels import PanelTable
from monitor.server.pages.stream_charts import Chart, build_chart
from monitor.server.pages.stream_rows import Marks, read_marks
from monitor.server.pages.stream_view import Span, StreamView
from storage.database.engine import Database
from storage.queries.stream_series import StreamExtent, ThresholdStep, read_threshold_steps

_MOST_STEPS = 500
_HEIGHT = 170


def read_threshold_chart(db: Database, extent: StreamExtent, view: StreamView, span: Span) -> Chart:
    """Return the thresholds that were valid in a time: at most some hundred, each the last one of its interval."""
    with db.read() as conn:
        steps = read_threshold_steps(
            conn,
            extent.stream_id,
            from_us=span.from_us,
            until_us=span.until_us,
            spacing_us=max(span.length_us // _MOST_STEPS, 1),
        )
    steps = [step for step in steps if view.model is None or step.model_version == view.model]
    found = read_marks(db, extent.stream_id, span, steps)
    marks = Marks(shown=[mark for mark in found.shown if mark.kind in _SHOWN], beyond=found.beyond)
    times = [max(step.valid_from_us, span.from_us) for step in steps]
    columns: dict[str, plot.Values] = {
        "threshold": [step.threshold for step in steps],
        "lower": [step.lower for step in steps],
        "upper": [step.upper for step in steps],
    }
    low, high = plot.value_range([value for values in columns.values() for value in values], "linear")
    frame = plot.Frame(from_us=span.from_us, until_us=span.until_us, low=low, high=high, height=_HEIGHT)
    drawn = [
        plot.shades(frame, [(m.at_us, m.end_us or m.at_us) for m in marks.shown if m.kind != "model"], "f-sunken"),
        plot.verticals(frame, [mark.at_us for mark in marks.shown if mark.kind == "model"], "s-data"),
        plot.band(frame, times, columns["lower"], columns["upper"], "f-critical", "0.3"),
        plot.steps(frame, times, columns["threshold"], "s-critical", width="2"),
    ]
    table = PanelTable(
        columns=("Valid from (UTC)", "Threshold (nats)", "From", "To", "Method", "Energies", "Percentile", "Model"),
        rows=[
            (
                iso(at).replace("T", " ").removesuffix("Z"),
                *(None if value is None else f"{value:.3f}" for value in (step.threshold, step.lower, step.upper)),
                describe_method(step),
                step.n,
                f"{step.percentile:g}",
                step.model_version,
            )
            for at, step in zip(times, steps, strict=True)
        ],
        caption="the chart is drawn from this table",
        names=("at", *columns, "method", "n", "percentile", "model"),
    )
    return build_chart(
        table,
        plot.drawing(frame, drawn),
        tuple(columns),
        "linear",
        span,
        view,
        marks,
        says=_describe(steps, span),
        note=_summarise(steps),
        labels=(number(high, 2), number(low, 2)),
    )


_SHOWN = frozenset({"model", "held", "contested"})


def describe_method(step: ThresholdStep) -> str:
    """Return the method of a threshold, and whether it was held or contested."""
    return step.method + (", held" if step.held else "") + (", contested" if step.is_contested else "")


def _describe(steps: Sequence[ThresholdStep], span: Span) -> str:
    if not steps:
        return f"No threshold over {duration(span.length_us)}."
    first, last = steps[0], steps[-1]
    width = ""
    if None not in (first.lower, first.upper, last.lower, last.upper):
        width = f" Its interval was {_width(first)} nats wide and is {_width(last)}."
    return (
        f"The threshold went from {number(first.threshold, 2)} nats ({first.method}) to {number(last.threshold, 2)} "
        f"({last.method}).{width}"
    )


def _width(step: ThresholdStep) -> str:
    return number((step.upper or 0.0) - (step.lower or 0.0), 2)


def _summarise(steps: Sequence[ThresholdStep]) -> str:
    if not steps:
        return "no threshold yet"
    last = steps[-1]
    held = f"; held since {clock(last.valid_from_us)}: {last.held}" if last.held else ""
    return f"{last.percentile:g}%, {describe_method(last)}, from {last.n:,} energies{held}"
