"""The charts of the stream page over one time axis: energies, outliers, and records. Each is drawn from its table."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from config.time_format import DAY_US, MINUTE_US
from monitor.server.pages import plot
from monitor.server.pages.formats import clock, duration, iso, number, plural, short_date
from monitor.server.pages.panels import PanelTable
from monitor.server.pages.stream_rows import Marks, Series, SeriesRow, read_marks, read_series
from monitor.server.pages.stream_view import Span, StreamView, centre_on
from storage.database.engine import Database
from storage.queries.stream_series import StreamExtent

_TALL, _LOW = 220, 150
_SIGNS = {"events": "data", "late": "warning_line", "dead": "fires", "filtered": "data2"}
_KEY_NAMES = {"dead": "dead letters"}
_INCIDENT_KINDS = frozenset({"critical", "warning"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart over time.

    Attributes:
        table: The rows that it is drawn from.
        svg: The drawing without script.
        series: The columns of the table that are drawn.
        scale: `log`, `asinh`, `linear`, or `count` from zero.
        span: The time of the x axis.
        says: The chart in a sentence, for readers who do not see it.
        note: What a point is: a window, or the windows of an interval.
        marks: The marks.
        labels: The ends of the value axis, highest first.
        ticks: The labels of the time axis without script.
        before: Address of the chart around the nearest incident before it; None without one.
        after: The same after it.
    """

    table: PanelTable
    svg: Markup
    series: tuple[str, ...]
    scale: str
    span: Span
    says: str
    note: str
    marks: Marks
    labels: tuple[str, str]
    ticks: Sequence[str]
    before: str | None
    after: str | None

    @property
    def incidents(self) -> list[object]:
        """Return the marks of incidents."""
        return [mark for mark in self.marks.shown if mark.kind in _INCIDENT_KINDS]

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Return the key of the chart: a sign and the name of each series."""
        return [(_SIGNS[name], _KEY_NAMES.get(name, name)) for name in self.series if name in _SIGNS]

    @property
    def is_empty(self) -> bool:
        """Return whether there is nothing to draw."""
        return not self.table.rows


def read_energy_chart(db: Database, extent: StreamExtent, view: StreamView, span: Span) -> Chart:
    """Return the energies of each window against the threshold in force with its interval."""
    series = read_series(db, extent.stream_id, extent.window_us, span, view.model)
    marks = read_marks(db, extent.stream_id, span, series.steps)
    rows = [row for row in series.rows if row.rollup.energy_max is not None]
    times = [row.rollup.start_us for row in rows]
    columns = {
        "p50": [row.rollup.energy_p50 for row in rows],
        "p99": [row.rollup.energy_p99 for row in rows],
        "max": [row.rollup.energy_max for row in rows],
        "threshold": [None if row.step is None else row.step.threshold for row in rows],
        "lower": [None if row.step is None else row.step.lower for row in rows],
        "upper": [None if row.step is None else row.step.upper for row in rows],
    }
    values = [value for name in ("p50", "p99", "max", "threshold") for value in columns[name]]
    scale = plot.choose_scale(values)
    low, high = plot.value_range(values, scale)
    frame = plot.Frame(from_us=span.from_us, until_us=span.until_us, low=low, high=high, height=_TALL, scale=scale)
    drawn = [
        *_draw_marks(frame, marks),
        plot.grid(frame, _grid_values(low, high, scale)),
        plot.band(frame, times, columns["lower"], columns["upper"], "f-critical", "0.3"),
        plot.line(frame, times, columns["p50"], "s-data2"),
        plot.line(frame, times, columns["p99"], "s-data"),
        plot.steps(frame, times, columns["threshold"], "s-critical", dash="6 3"),
        plot.dots(frame, times, columns["max"]),
    ]
    titles = ("p50", "p99", "Max", "Threshold", "From", "To", "Method")
    table = PanelTable(
        columns=("Start (UTC)", *(f"{title} (nats)" if title != "Method" else title for title in titles)),
        rows=[
            (_stamp(row.rollup.start_us), *(_nats(columns[name][i]) for name in columns), _method(row))
            for i, row in enumerate(rows)
        ],
        caption=f"{_name_rows(series, extent.window_us)}; energies in nats; the chart is drawn from this table",
        names=("at", *columns, "method"),
    )
    return build_chart(
        table,
        plot.drawing(frame, drawn),
        tuple(columns),
        scale,
        span,
        view,
        marks,
        says=_describe_energy(rows, span),
        note=_name_rows(series, extent.window_us),
        labels=(_axis_text(high), _axis_text(low)),
    )


def read_outlier_chart(db: Database, extent: StreamExtent, view: StreamView, span: Span) -> Chart:
    """Return the outliers of each window against the range of clean windows, and the count that fires."""
    series = read_series(db, extent.stream_id, extent.window_us, span, view.model)
    marks = read_marks(db, extent.stream_id, span, ())
    rows = [row for row in series.rows if row.rollup.events]
    times, ends = [row.rollup.start_us for row in rows], [row.rollup.end_us for row in rows]
    # Of several windows together no count fires: each window is judged by itself.
    single = series.resolution_us is None
    columns: dict[str, plot.Values] = {
        "outliers": [float(row.rollup.outliers) for row in rows],
        "expected": [row.rollup.expected for row in rows],
        "low": [row.low for row in rows],
        "high": [row.high for row in rows],
        **({"fires": [row.rollup.fires_at for row in rows]} if single else {}),
    }
    values = [*columns["outliers"], *columns["high"], *columns.get("fires", [])]
    low, high = plot.value_range(values, "linear", from_zero=True)
    frame = plot.Frame(from_us=span.from_us, until_us=span.until_us, low=low, high=high, height=_LOW)
    drawn = [
        *_draw_marks(frame, marks),
        plot.band(frame, times, columns["low"], columns["high"], "f-band"),
        plot.bars(frame, times, ends, columns["outliers"], "f-data"),
        plot.steps(frame, times, columns["expected"], "s-ink"),
        plot.steps(frame, times, columns["fires"], "s-critical", dash="6 3") if single else "",
    ]
    extra = ("Fires at",) if single else ("Most in a window", "of them firing")
    table = PanelTable(
        columns=("Start (UTC)", "Outliers", "Expected", "5%", "95%", *extra, "Events", "p-value"),
        rows=[
            (
                _stamp(row.rollup.start_us),
                row.rollup.outliers,
                None if row.rollup.expected is None else f"{row.rollup.expected:.2f}",
                row.low,
                row.high,
                *((row.rollup.fires_at,) if single else (row.rollup.most_outliers, row.rollup.fired)),
                row.rollup.events,
                None if row.rollup.p_value is None else f"{row.rollup.p_value:.3g}",
            )
            for row in rows
        ],
        caption=f"{_name_rows(series, extent.window_us)}; expected and 5 to 95% of clean windows by the count model",
        names=(
            "at",
            "outliers",
            "expected",
            "low",
            "high",
            *(("fires",) if single else ("most", "fired")),
            "events",
            "p",
        ),
    )
    return build_chart(
        table,
        plot.drawing(frame, drawn),
        tuple(columns),
        "count",
        span,
        view,
        marks,
        says=_describe_outliers(rows, span),
        note=_note_outliers(rows, single=single),
        labels=(_axis_text(high), "0"),
    )


def read_record_chart(db: Database, extent: StreamExtent, view: StreamView, span: Span) -> Chart:
    """Return the events of each window, and its late events, dead letters and filtered records."""
    series = read_series(db, extent.stream_id, extent.window_us, span, view.model)
    rows = series.rows
    times, ends = [row.rollup.start_us for row in rows], [row.rollup.end_us for row in rows]
    counts = {
        name: [float(getattr(row.rollup, name)) for row in rows] for name in ("events", "late", "dead", "filtered")
    }
    present = tuple(name for name in ("late", "dead", "filtered") if any(counts[name]))
    shown = present or ("events",)
    low, high = plot.value_range([value for name in shown for value in counts[name]], "linear", from_zero=True)
    frame = plot.Frame(from_us=span.from_us, until_us=span.until_us, low=low, high=high, height=_LOW)
    css = {"events": "s-data", "late": "s-warning", "dead": "s-critical", "filtered": "s-data2"}
    drawn = [plot.steps(frame, times, counts[name], css[name]) for name in shown]
    totals = {name: int(sum(values)) for name, values in counts.items()}
    table = PanelTable(
        columns=("Start (UTC)", "Events", "Late", "Dead letters", "Filtered"),
        rows=[(_stamp(at), *(int(counts[name][i]) for name in counts)) for i, at in enumerate(times)],
        caption=f"{_name_rows(series, extent.window_us)}; records by the time at which they arrived",
        names=("at", *counts),
    )
    length_s = sum(end - at for at, end in zip(times, ends, strict=True)) / 1e6
    note = f"{totals['events'] / length_s:,.3g} events a second; " if length_s else ""
    others = ", ".join(
        f"{number(totals[name])} {words}"
        for name, words in (("late", "late"), ("dead", "dead"), ("filtered", "filtered"))
    )
    return build_chart(
        table,
        plot.drawing(frame, drawn),
        shown,
        "count",
        span,
        view,
        Marks(shown=(), beyond=read_marks(db, extent.stream_id, span, ()).beyond),
        says=f"{number(totals['events'])} events over {duration(span.length_us)}: {others}.",
        note=note + others,
        labels=(_axis_text(high), "0"),
    )


def build_chart(
    table: PanelTable,
    svg: Markup,
    series: tuple[str, ...],
    scale: str,
    span: Span,
    view: StreamView,
    marks: Marks,
    *,
    says: str,
    note: str,
    labels: tuple[str, str],
) -> Chart:
    """Return a chart, with the addresses of the nearest incidents beyond it."""
    beyond = marks.beyond
    return Chart(
        table=table,
        svg=svg,
        series=series,
        scale=scale,
        span=span,
        says=says,
        note=note,
        marks=marks,
        labels=labels,
        ticks=_ticks(span),
        before=None if beyond.last_before_us is None else view.href(zoom=centre_on(beyond.last_before_us, span)),
        after=None if beyond.first_after_us is None else view.href(zoom=centre_on(beyond.first_after_us, span)),
    )


def _draw_marks(frame: plot.Frame, marks: Marks) -> list[str]:
    periods = [(mark.at_us, mark.end_us or mark.at_us) for mark in marks.shown if mark.kind in {"held", "contested"}]
    at = {kind: [mark.at_us for mark in marks.shown if mark.kind == kind] for kind in ("critical", "warning", "model")}
    return [
        plot.shades(frame, periods, "f-sunken"),
        plot.verticals(frame, at["critical"], "s-critical"),
        plot.verticals(frame, at["warning"], "s-warning"),
        plot.verticals(frame, at["model"], "s-data"),
    ]


def _grid_values(low: float, high: float, scale: plot.Scale) -> list[float]:
    if scale != "log":
        return [low + (high - low) * share for share in (0.25, 0.5, 0.75)]
    return [10.0**power for power in range(-12, 13) if low <= 10.0**power <= high]


def _stamp(time_us: int) -> str:
    text = iso(time_us).replace("T", " ").removesuffix("Z")
    return text if time_us % MINUTE_US else text[:16]


def _nats(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def _method(row: SeriesRow) -> str | None:
    if row.step is None:
        return None
    return row.step.method + (", held" if row.step.held else "") + (", contested" if row.step.is_contested else "")


def _axis_text(value: float) -> str:
    return number(value, 0 if abs(value) >= 10 else 1)


def _ticks(span: Span) -> list[str]:
    """Return five labels along the time axis."""
    at = [span.from_us + span.length_us * i // 4 for i in range(5)]
    return [short_date(each) if span.length_us > 3 * DAY_US else clock(each) for each in at]


def _name_rows(series: Series, window_us: int) -> str:
    if series.resolution_us is None:
        return f"{duration(window_us)} windows"
    return f"windows in steps of {duration(series.resolution_us)}"


def _describe_energy(rows: Sequence[SeriesRow], span: Span) -> str:
    if not rows:
        return f"No energies over {duration(span.length_us)}."
    top = max(rows, key=lambda row: row.rollup.energy_max or 0.0).rollup
    p99 = sorted(row.rollup.energy_p99 for row in rows if row.rollup.energy_p99 is not None)
    middle = f" The p99 is {number(p99[len(p99) // 2], 1)} nats in the middle window." if p99 else ""
    step = rows[-1].step
    limit = "" if step is None else f" The threshold is {number(step.threshold, 2)} nats."
    return (
        f"Energy per window over {duration(span.length_us)}.{middle}{limit} The largest energy is "
        f"{number(top.energy_max, 1)} nats at {clock(top.start_us, beside_us=span.until_us)}."
    )


def _describe_outliers(rows: Sequence[SeriesRow], span: Span) -> str:
    total = sum(row.rollup.outliers for row in rows)
    expected = sum(row.rollup.expected or 0.0 for row in rows)
    fired = sum(row.rollup.fired for row in rows)
    return (
        f"{plural(total, 'outlier')} over {duration(span.length_us)}, {number(expected)} expected of clean windows; "
        f"{plural(fired, 'window')} fired."
    )


def _note_outliers(rows: Sequence[SeriesRow], *, single: bool) -> str:
    clean = [row for row in rows if row.rollup.expected is not None]
    if not clean:
        return "no window has a threshold yet"
    last = clean[-1]
    text = f"a clean window has {number(last.rollup.expected, 1)}"
    if not single:
        return f"sums of several windows; the last one has {number(last.rollup.expected, 1)} expected"
    fires = sorted({row.rollup.fires_at for row in clean if row.rollup.fires_at is not None})
    if not fires:
        return text
    counts = str(fires[0]) if fires[0] == fires[-1] else f"{fires[0]} to {fires[-1]}"
    return f"{text}; {counts} fire"
