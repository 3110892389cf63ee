"""The drift heat map of a stream, the histograms behind a cell, and the features of a time against training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from markupsafe import Markup

from config.time_format import MINUTE_US
from monitor.models.feature_histograms import load_feature_histograms
from monitor.server.pages import plot
from monitor.server.pages.formats import clock, duration, interval, iso, short_date, together
from monitor.server.pages.panels import PanelTable
from monitor.server.pages.stream_view import Span, StreamView
from monitor.statistics.feature_histograms import FeatureDistribution, FeatureHistogram
from storage.database.engine import Database
from storage.queries.drift_cells import DriftCells, list_horizons, read_drift_cells
from storage.queries.stream_series import StreamExtent

_COLUMNS = 12
_MOST_ROWS = 24
_LEVELS = (2.0, 3.5)
_NAMES = {
    "rank": "level",
    "spread": "spread",
    "energy_rank": "level",
    "energy_spread": "spread",
    "pair": "together",
    "occupancy": "share of component",
}
_ALWAYS = frozenset({"rank", "spread", "energy_rank", "energy_spread"})
_MIN_FEATURES_US = 15 * MINUTE_US


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatCell:
    """A cell of the heat map: the strongest z of a statistic among the horizons of its column.

    `level` is 1 to 3 below the limit and 4 above it. `href` opens its histograms.
    """

    z: float
    level: int
    href: str
    is_open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatRow:
    """A statistic over the columns; a cell is None where the column has no horizon with it."""

    name: str
    cells: Sequence[HeatCell | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCell:
    """The statistic behind one cell, with the feature before and after.

    Attributes:
        title: The feature and the time.
        z: Its change in standard errors.
        limit: The value that |z| must exceed.
        effect: The change in training deviations.
        histogram: The feature before (outline) and in the horizon (filled); None without samples.
        ends: The ends of the histogram's axis.
        rows: Quantiles: name, before, after, change.
        sampled: The numbers of sampled events, before and after.
        before_name: The time that the horizon is compared with.
        after_name: The horizon.
    """

    title: str
    z: float
    limit: float
    effect: float
    histogram: Markup | None
    ends: tuple[str, str]
    rows: Sequence[tuple[str, str, str, str]]
    sampled: tuple[int, int] | None
    before_name: str
    after_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """The drift statistics of a time.

    Attributes:
        horizons: Choices of the length: words, address, whether it is shown.
        heads: Date and time of the start of each column.
        rows: The statistics.
        hidden: Number of statistics that are not shown: pairs and components far below the limit.
        limit: The limit of the last horizon; None without one.
        note: The columns in words.
        table: Every statistic of every horizon.
        opened: The cell whose histograms are open.
    """

    horizons: Sequence[tuple[str, str, bool]]
    heads: Sequence[tuple[str, str]]
    rows: Sequence[HeatRow]
    hidden: int
    limit: float | None
    note: str
    table: PanelTable
    opened: OpenCell | None


def read_heat_map(db: Database, extent: StreamExtent, view: StreamView, span: Span) -> HeatMap:
    """Return the heat map of the tested horizons that end in a time."""
    with db.read() as conn:
        lengths = list_horizons(conn, extent.stream_id)
        length_us = _choose_length(lengths, view.horizon, span)
        found = (
            []
            if length_us is None
            else read_drift_cells(
                conn, extent.stream_id, horizon_us=length_us, from_us=span.from_us, until_us=span.until_us
            )
        )
    groups = _group(found)
    names = _choose_statistics(found)
    chosen = _find_open(found, view)
    rows = [
        HeatRow(name=_row_name(*name), cells=[_cell(group, name, view, chosen) for group in groups]) for name in names
    ]
    every = {name for cells in found for name in cells.names}
    return HeatMap(
        horizons=[
            (duration(each), view.href(horizon=each // 1_000_000, cell=None), each == length_us) for each in lengths
        ],
        heads=_heads([group[0].window_start_us for group in groups]),
        rows=rows,
        hidden=len(every) - len(names),
        limit=found[-1].limit if found else None,
        note=_note(groups, length_us),
        table=_cell_table(found),
        opened=None if chosen is None else _open(db, extent, chosen),
    )


def _heads(starts_us: Sequence[int]) -> list[tuple[str, str]]:
    """Return the date and the time of each column; the date is empty where it is that of the column before."""
    dates = [short_date(at) for at in starts_us]
    return [
        ("" if i and dates[i - 1] == date else date, clock(at))
        for i, (date, at) in enumerate(zip(dates, starts_us, strict=True))
    ]


def _choose_length(lengths: Sequence[int], wanted_s: int | None, span: Span) -> int | None:
    """Return the wanted length of a horizon, or the longest one that fits six times into the time."""
    if not lengths:
        return None
    if wanted_s is not None and wanted_s * 1_000_000 in lengths:
        return wanted_s * 1_000_000
    fitting = [each for each in lengths if 6 * each <= span.length_us]
    return fitting[-1] if fitting else lengths[0]


def _group(found: Sequence[DriftCells]) -> list[Sequence[DriftCells]]:
    """Return the horizons in at most `_COLUMNS` groups of neighbours, the newest one full."""
    if not found:
        return []
    size = -(-len(found) // _COLUMNS)
    first = len(found) % size
    starts = [*([0] if first else []), *range(first, len(found), size)]
    ends = [*starts[1:], len(found)]
    return [found[a:b] for a, b in zip(starts, ends, strict=True)]


def _choose_statistics(found: Sequence[DriftCells]) -> list[tuple[str, str]]:
    """Return the statistics that are shown: levels and spreads, and others that come near the limit."""
    strongest: dict[tuple[str, str], float] = {}
    for cells in found:
        for name, z in zip(cells.names, np.abs(cells.z.astype(np.float64)).tolist(), strict=True):
            strongest[name] = max(strongest.get(name, 0.0), z)
    shown = [name for name, z in strongest.items() if name[0] in _ALWAYS or z > _LEVELS[1]]
    if len(shown) > _MOST_ROWS:
        kept = set(sorted(shown, key=lambda name: -strongest[name])[:_MOST_ROWS])
        shown = [name for name in shown if name in kept]
    order = {kind: place for place, kind in enumerate(_NAMES)}
    return sorted(shown, key=lambda name: order.get(name[0], len(order)))


def _row_name(statistic: str, feature: str) -> str:
    if statistic in {"energy_rank", "energy_spread"}:
        return f"energy, {_NAMES[statistic]}"
    return f"{feature}, {_NAMES.get(statistic, statistic)}" if feature else _NAMES.get(statistic, statistic)


def _strongest(group: Sequence[DriftCells], name: tuple[str, str]) -> tuple[DriftCells, int] | None:
    places = [(cells, list(cells.names).index(name)) for cells in group if name in cells.names]
    return max(places, key=lambda place: abs(float(place[0].z[place[1]])), default=None)


def _cell(
    group: Sequence[DriftCells], name: tuple[str, str], view: StreamView, chosen: tuple[DriftCells, int] | None
) -> HeatCell | None:
    place = _strongest(group, name)
    if place is None:
        return None
    cells, column = place
    z = float(cells.z[column])
    size = abs(z)
    level = 4 if size > cells.limit else 3 if size > _LEVELS[1] else 2 if size > _LEVELS[0] else 1
    return HeatCell(
        z=z,
        level=level,
        href=view.href(cell=(cells.window_end_us, _cell_key(name)), horizon=cells.horizon_us // 1_000_000),
        is_open=chosen is not None
        and chosen[0].window_end_us == cells.window_end_us
        and chosen[0].names[chosen[1]] == name,
    )


def _cell_key(name: tuple[str, str]) -> str:
    return ":".join(name)


def _find_open(found: Sequence[DriftCells], view: StreamView) -> tuple[DriftCells, int] | None:
    """Return the cell of the address, or else the strongest one above the limit in the newest horizon with one."""
    if view.cell is not None:
        for cells in found:
            if cells.window_end_us == view.cell[0]:
                keys = [_cell_key(name) for name in cells.names]
                return (cells, keys.index(view.cell[1])) if view.cell[1] in keys else None
        return None
    for cells in reversed(found):
        column = int(np.argmax(np.abs(cells.z))) if len(cells.z) else 0
        if len(cells.z) and abs(float(cells.z[column])) > cells.limit:
            return cells, column
    return None


def _open(db: Database, extent: StreamExtent, chosen: tuple[DriftCells, int]) -> OpenCell:
    cells, column = chosen
    statistic, feature = cells.names[column]
    time = interval(cells.window_start_us, cells.window_end_us, beside_us=extent.last_us or 0)
    histogram = None
    if statistic in {"rank", "spread"}:
        histograms = load_feature_histograms(
            db,
            extent.stream_id,
            from_us=cells.window_start_us,
            until_us=cells.window_end_us,
            horizon_us=cells.horizon_us,
        )
        histogram = next((each for each in histograms if each.feature == feature), None)
    opened = OpenCell(
        title=f"{_row_name(statistic, feature)}, {time}",
        z=float(cells.z[column]),
        limit=cells.limit,
        effect=float(cells.effect[column]),
        histogram=None,
        ends=("", ""),
        rows=[_statistic_row(float(cells.before[column]), float(cells.after[column]))],
        sampled=None,
        before_name="Before",
        after_name=clock(cells.window_start_us),
    )
    if histogram is None or histogram.before is None or histogram.after is None:
        return opened
    return _with_histogram(opened, histogram, histogram.before, histogram.after)


def _statistic_row(before: float, after: float) -> tuple[str, str, str, str]:
    texts = together([before, after])
    return ("Mean of the statistic", texts[0], texts[1], _change(before, after))


def _with_histogram(
    opened: OpenCell, histogram: FeatureHistogram, before: FeatureDistribution, after: FeatureDistribution
) -> OpenCell:
    names = ("5%", "25%", "Median", "75%", "95%")
    texts = together([*before.quantiles, *after.quantiles])
    rows = [
        (name, texts[i], texts[i + len(names)], _change(before.quantiles[i], after.quantiles[i]))
        for i, name in enumerate(names)
    ]
    ends = together([histogram.edges[0], histogram.edges[-1]])
    return replace(
        opened,
        histogram=plot.histogram(after.shares, before.shares, 120),
        ends=(ends[0], ends[1]),
        rows=rows,
        sampled=(before.sampled, after.sampled),
    )


def _change(before: float, after: float) -> str:
    text = together([abs(after - before), before])[0]
    return f"{'−' if after < before else '+'}{text}"


def _note(groups: Sequence[Sequence[DriftCells]], length_us: int | None) -> str:
    if length_us is None:
        return "no horizon has been tested yet"
    size = max((len(group) for group in groups), default=1)
    if size == 1:
        return f"z of each horizon of {duration(length_us)} against the base"
    return f"z against the base; a cell is the strongest of {size} horizons of {duration(length_us)}"


def _cell_table(found: Sequence[DriftCells]) -> PanelTable:
    rows = []
    for cells in found:
        for i, (statistic, feature) in enumerate(cells.names):
            rows.append(
                (
                    iso(cells.window_start_us),
                    iso(cells.window_end_us),
                    statistic,
                    feature,
                    *(f"{float(values[i]):.4g}" for values in (cells.z, cells.effect, cells.before, cells.after)),
                    f"{cells.limit:.3g}",
                )
            )
    return PanelTable(
        columns=(
            "Start",
            "End",
            "Statistic",
            "Feature",
            "z",
            "Effect (training deviations)",
            "Before",
            "After",
            "Limit",
        ),
        rows=rows,
        caption="all statistics of the tested horizons",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturePlot:
    """The distribution of a feature in a time against training. `shift` says whether the medians differ."""

    name: str
    svg: Markup
    ends: tuple[str, str]
    training: str
    now: str
    differs: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """The features of a time.

    `interval` is the time in words; `sampled` the number of sampled events.
    """

    interval: str
    plots: Sequence[FeaturePlot]
    sampled: int
    table: PanelTable


def read_features(db: Database, extent: StreamExtent, view: StreamView, span: Span) -> Features:
    """Return the distribution of each feature in the zoomed time, or in the last windows, against training."""
    if view.zoom is None:
        length_us = min(max(_MIN_FEATURES_US, 3 * extent.window_us), span.length_us)
        span = Span(from_us=span.until_us - length_us, until_us=span.until_us)
    histograms = load_feature_histograms(db, extent.stream_id, from_us=span.from_us, until_us=span.until_us)
    plots = [_plot(each) for each in histograms if each.after is not None]
    levels = ("5%", "25%", "50%", "75%", "95%")
    return Features(
        interval=interval(span.from_us, span.until_us, beside_us=extent.last_us or span.until_us),
        plots=plots,
        sampled=max((each.after.sampled for each in histograms if each.after is not None), default=0),
        table=PanelTable(
            columns=("Feature", "Of", "Sampled events", *levels),
            rows=[
                (each.feature, side, found.sampled, *(f"{value:.6g}" for value in found.quantiles))
                for each in histograms
                for side, found in (("training", each.training), ("this time", each.after))
                if found is not None
            ],
        ),
    )


def _plot(histogram: FeatureHistogram) -> FeaturePlot:
    after, training = histogram.after, histogram.training
    assert after is not None, "only features with samples are drawn"
    texts = together([*after.quantiles, *(training.quantiles if training is not None else ())])
    ends = together([histogram.edges[0], histogram.edges[-1]])
    return FeaturePlot(
        name=histogram.feature,
        svg=plot.histogram(after.shares, None if training is None else training.shares),
        ends=(ends[0], ends[1]),
        training="–" if training is None else _spread(texts[5:]),
        now=_spread(texts[:5]),
        differs=training is not None and (after.lower[2] > training.upper[2] or after.upper[2] < training.lower[2]),
    )


def _spread(texts: Sequence[str]) -> str:
    return f"{texts[2]} ({texts[0]} to {texts[4]})"
