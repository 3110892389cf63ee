"""The attribution as a waterfall: a typical event, and each line of features from where the last one ended. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from monitor.models.attribution import AttributedFeature, Attribution, AttributionLine, Spread
from monitor.server.pages.formats import ABSENT, number, share, together
from monitor.server.pages.icons import svg
from monitor.server.pages.panels import PanelTable
from storage.queries.incident_windows import IncidentOutliers

MAX_LINES = 8
"""Lines that are shown; the others are one line, so that the sum stays complete."""
MAX_FEATURES_OF_A_LINE = 4
_MIN_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class WhyRow:
    """A row of the waterfall; `here`, `usual` and `expected` have a text for each feature of the line."""

    name: str
    note: str
    bar: Markup
    nats: str
    share: str
    here: Sequence[str] = ()
    usual: Sequence[str] = ()
    expected: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """The waterfall; `events` of `outliers` are explained, and `threshold` is the limit that they exceed."""

    base: WhyRow
    rows: Sequence[WhyRow]
    total: WhyRow
    events: int
    outliers: int
    threshold: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    low: float
    high: float

    def at(self, value: float) -> float:
        return 100 * (value - self.low) / (self.high - self.low)


def build_why(attribution: Attribution, outliers: IncidentOutliers) -> Why:
    """Return the waterfall of an attribution."""
    steps = _steps(attribution)
    ends = [0.0, attribution.typical_energy, attribution.mean_energy, *(start + nats for _, start, nats in steps)]
    if outliers.threshold is not None:
        ends.append(outliers.threshold)
    scale = _Scale(low=min(ends), high=max(*ends, min(ends) + 1e-9))
    return Why(
        base=WhyRow(
            name="a typical event",
            note="",
            bar=_draw(scale, 0.0, attribution.typical_energy, "f-data2"),
            nats=_nats(attribution.typical_energy),
            share="",
        ),
        rows=[_build_row(line, start, nats, scale) for line, start, nats in steps],
        total=WhyRow(
            name="mean energy",
            note="",
            bar=_draw(scale, 0.0, attribution.mean_energy, "f-data", tick=outliers.threshold),
            nats=_nats(attribution.mean_energy),
            share="100%",
        ),
        events=attribution.events,
        outliers=outliers.count,
        threshold=_describe_threshold(outliers),
    )


def _steps(attribution: Attribution) -> list[tuple[Sequence[AttributionLine], float, float]]:
    """Return the lines of each row, with the energy at which it starts and its contribution."""
    shown: list[Sequence[AttributionLine]] = [[line] for line in attribution.lines]
    if len(shown) > MAX_LINES:
        by_size = sorted(attribution.lines, key=lambda line: -abs(line.nats))
        kept = {id(line) for line in by_size[: MAX_LINES - 1]}
        shown = [[line] for line in attribution.lines if id(line) in kept]
        shown.append([line for line in attribution.lines if id(line) not in kept])
    steps, at = [], attribution.typical_energy
    for lines in shown:
        nats = sum(line.nats for line in lines)
        steps.append((lines, at, nats))
        at += nats
    return steps


def _build_row(lines: Sequence[AttributionLine], start: float, nats: float, scale: _Scale) -> WhyRow:
    shares = [line.share for line in lines if line.share is not None]
    bar = _draw(scale, start, start + nats, "f-data" if nats >= 0 else "f-data2")
    told = share(sum(shares)) if shares else ABSENT
    signed = ("+" if nats >= 0 else "") + _nats(nats)
    if len(lines) > 1:
        count = sum(len(line.features) for line in lines)
        return WhyRow(name=f"{count:,} other features", note=f"{len(lines):,} lines", bar=bar, nats=signed, share=told)
    features = lines[0].features[:MAX_FEATURES_OF_A_LINE]
    values = [_describe_values(each) for each in features]
    more = len(lines[0].features) - len(features)
    names = [each.name for each in features] + ([f"{more:,} more"] if more else [])
    return WhyRow(
        name=", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0],
        note=_note(lines[0]),
        bar=bar,
        nats=signed,
        share=told,
        here=[value[0] for value in values],
        usual=[value[1] for value in values],
        expected=[value[2] for value in values],
    )


def _note(line: AttributionLine) -> str:
    if len(line.features) > 1:
        return "one cause: they move together"
    if line.share is None or line.share <= _MIN_SHARE:
        return ""
    if line.features[0].is_usual_alone:
        return "usual alone, not with the others"
    return "wider than usual" if line.features[0].is_wider else ""


def _describe_values(feature: AttributedFeature) -> tuple[str, str, str]:
    """Return values, usual range and expected values, with equal decimals."""
    here = [None] * 3 if feature.here is None else _numbers(feature.here)
    expected = [None] * 3 if feature.expected is None else _numbers(feature.expected)
    usual = [None, None] if feature.usual is None else list(feature.usual)
    texts = together([*here, *usual, *expected])
    return (
        ABSENT if feature.here is None else f"{texts[1]} ({texts[0]} to {texts[2]})",
        ABSENT if feature.usual is None else f"{texts[3]} to {texts[4]}",
        ABSENT if feature.expected is None else f"{texts[6]} ({texts[5]} to {texts[7]})",
    )


def _numbers(spread: Spread) -> list[float | None]:
    return [spread.low, spread.median, spread.high]


def _nats(value: float) -> str:
    return number(value, 1)


def _describe_threshold(outliers: IncidentOutliers) -> str:
    if outliers.threshold is None:
        return ""
    if outliers.lower is None or outliers.upper is None:
        return f"threshold {number(outliers.threshold, 2)} nats"
    limits = f"{number(outliers.lower, 2)} to {number(outliers.upper, 2)}"
    return f"threshold {number(outliers.threshold, 2)} nats ({limits})"


def _draw(scale: _Scale, start: float, end: float, fill: str, *, tick: float | None = None) -> Markup:
    low, high = sorted((scale.at(start), scale.at(end)))
    bar = f"M{low:.2f} 2H{max(high, low + 0.3):.2f}V14H{low:.2f}z"
    drawn = f'<path class="f-sunken" d="M0 0h100v16H0z"/><path class="{fill}" d="{bar}"/>'
    if tick is not None:
        mark = f"M{scale.at(tick):.2f} 0V16"
        drawn += f'<path class="s-page hair" stroke-width="5" d="{mark}"/>'
        drawn += f'<path class="s-critical hair" stroke-width="2" d="{mark}"/>'
    return svg(drawn, "0 0 100 16", preserveAspectRatio="none")


def tabulate_attribution(attribution: Attribution) -> PanelTable:
    """Return the attribution as a table: one row for each feature, the contribution at the first of its line."""
    rows: list[list[object]] = [["a typical event", attribution.typical_energy, None, *[None] * 8]]
    for line in attribution.lines:
        for i, feature in enumerate(line.features):
            here = [None] * 3 if feature.here is None else _numbers(feature.here)
            expected = [None] * 3 if feature.expected is None else _numbers(feature.expected)
            usual = [None] * 2 if feature.usual is None else list(feature.usual)
            of_line = [line.nats, line.share] if i == 0 else [None, None]
            rows.append([feature.name, *of_line, *here, *usual, *expected])
    rows.append(["mean energy", attribution.mean_energy, 1, *[None] * 8])
    columns = (
        "feature", "contribution (nats)", "share of the extra", "here 5%", "here median", "here 95%",
        "usual 5%", "usual 95%", "expected 5%", "expected median", "expected 95%",
    )  # fmt: skip
    caption = f"mean of {attribution.events:,} outliers; features of one line follow one another"
    return PanelTable(columns=columns, rows=rows, caption=caption)
