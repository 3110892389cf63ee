"""The tables of an incident page: keys, events, drifted statistics, and the facts of the other kinds. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from config.server import fill_trace_url
from monitor.models.attribution import Attribution
from monitor.server.pages.formats import ABSENT, iso, number, parse_us, probability, significant, together, words
from monitor.server.pages.panels import PanelTable
from storage.queries.incident_windows import IncidentOutlier

MAX_EVENTS = 8
MAX_FEATURES = 8
MAX_ROWS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """A key with significantly many outliers."""

    key: str
    outliers: str
    events: str
    ratio: str
    p: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class Whose:
    """The suspect keys of a window, and how many were looked at."""

    rows: Sequence[KeyRow]
    looked_at: int
    window_us: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """An outlier; `cells` are its features with a flag for the two that add most."""

    at_us: int
    event_id: str
    key: str
    energy: str
    cells: Sequence[tuple[str, bool]]
    place: str
    trace_id: str
    trace_url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StrangestEvents:
    """The strangest events with the columns of their features, `more` of which are not shown."""

    features: Sequence[str]
    rows: Sequence[EventRow]
    count: int
    more: int
    has_keys: bool
    has_ids: bool
    has_traces: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftRow:
    """A drifted statistic with the values before and now; `limit` is that of |z|."""

    subject: str
    statistic: str
    horizon: str
    before: str
    after: str
    effect: str
    z: str
    limit: str


def build_whose(numbers: Mapping[str, Any]) -> Whose:
    """Return the keys that are stored with an incident."""
    window = numbers.get("window") or {}
    return Whose(
        rows=[
            KeyRow(
                key=str(each["key"]),
                outliers=number(each["outliers"]),
                events=number(each["events"]),
                ratio=significant(each["times_the_others"], 2),
                p=probability(each["p_value"]),
            )
            for each in numbers.get("keys") or ()
        ],
        looked_at=int(numbers.get("keys_looked_at") or 0),
        window_us=parse_us(window["start"]) if "start" in window else None,
    )


def tabulate_keys(numbers: Mapping[str, Any]) -> PanelTable:
    """Return the keys as a table."""
    names = ("key", "outliers", "events", "times_the_others", "p_value")
    columns = ("key", "outliers", "events", "times the others", "p")
    return PanelTable(columns=columns, rows=[[each.get(name) for name in names] for each in numbers.get("keys") or ()])


def build_events(
    outliers: Sequence[IncidentOutlier], count: int, attribution: Attribution | None, trace_url: str | None = None
) -> StrangestEvents:
    """Return the strangest events; the features that add most come first in the table.

    `trace_url` is the template of the addresses of traces (`server.trace_url`).
    """
    shown = outliers[:MAX_EVENTS]
    names = list(dict.fromkeys(name for each in shown for name in each.features))
    if attribution is not None:
        led = {feature.name: i for i, line in enumerate(attribution.lines) for feature in line.features}
        names.sort(key=lambda name: led.get(name, len(led)))
    features = names[:MAX_FEATURES]
    texts = {name: together([_float(each.features.get(name)) for each in shown]) for name in features}
    leading = attribution.leading if attribution is not None else ()
    return StrangestEvents(
        features=features,
        rows=[
            EventRow(
                at_us=each.event_time_us,
                event_id=each.event_id or "",
                key=each.key or "",
                energy=number(each.energy, 1),
                cells=[(texts[name][i], i < len(leading) and name in leading[i]) for name in features],
                place=f"{each.topic}[{each.partition}] {each.source_offset:,}",
                trace_id=each.trace_id or "",
                trace_url=fill_trace_url(trace_url, each.trace_id) if trace_url and each.trace_id else None,
            )
            for i, each in enumerate(shown)
        ],
        count=count,
        more=len(names) - len(features),
        has_keys=any(each.key for each in shown),
        has_ids=any(each.event_id for each in shown),
        has_traces=any(each.trace_id for each in shown),
    )


def tabulate_events(outliers: Sequence[IncidentOutlier]) -> PanelTable:
    """Return the read outliers as a table with a column for each feature."""
    names = list(dict.fromkeys(name for each in outliers for name in each.features))
    rows = [
        [
            iso(each.event_time_us),
            each.event_id,
            each.key,
            each.energy,
            each.topic,
            each.partition,
            each.source_offset,
            each.trace_id,
            *(each.features.get(name) for name in names),
        ]
        for each in outliers[:200]
    ]
    columns = ("event time (UTC)", "id", "key", "energy (nats)", "topic", "partition", "offset", "trace", *names)
    return PanelTable(columns=columns, rows=rows, caption=f"the {len(rows):,} outliers of largest energy")


def build_drift(numbers: Mapping[str, Any]) -> list[DriftRow]:
    """Return the drifted statistics of an incident, the least probable first in each horizon."""
    return [
        _drift_row(horizon, each)
        for horizon in numbers.get("horizons") or ()
        for each in horizon.get("drifted", ())[:MAX_ROWS]
    ]


def tabulate_drift(numbers: Mapping[str, Any]) -> PanelTable:
    """Return the drifted statistics as a table."""
    rows = []
    for horizon in numbers.get("horizons") or ():
        for each in horizon.get("drifted", ()):
            values = [
                (each.get(side) or {}).get(name)
                for side in ("values_before", "values_after")
                for name in ("low", "median", "high", "mean")
            ]
            rows.append(
                [
                    horizon["horizon"],
                    each["feature"],
                    each["statistic"],
                    *values,
                    each["effect"],
                    each["z"],
                    horizon["limit"],
                ]
            )
    sides = tuple(f"{side} {name}" for side in ("before", "now") for name in ("5%", "median", "95%", "mean"))
    columns = ("horizon", "feature", "statistic", *sides, "effect (deviations)", "z", "limit of |z|")
    return PanelTable(columns=columns, rows=rows)


def build_facts(numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the single numbers that are stored with an incident, by name."""
    return [(words(name), _text(value)) for name, value in _flatten(numbers) if value not in (None, "", [], {})]


def build_rows(numbers: Mapping[str, Any], name: str) -> PanelTable | None:
    """Return a stored list of objects, such as ranges or partitions, as a table; None without any."""
    rows = [row for row in numbers.get(name) or () if isinstance(row, Mapping)]
    if not rows:
        return None
    columns = [key for key, value in rows[0].items() if not isinstance(value, Mapping | list)]
    return PanelTable(
        columns=tuple(words(column) for column in columns),
        rows=[[_plain(row.get(column)) for column in columns] for row in rows],
    )


def _drift_row(horizon: Mapping[str, Any], each: Mapping[str, Any]) -> DriftRow:
    before, after = each.get("values_before"), each.get("values_after")
    if before and after:
        values = [side.get(name) for side in (before, after) for name in ("median", "low", "high")]
        texts = together(values)
        told = [f"{texts[i]} ({texts[i + 1]} to {texts[i + 2]})" for i in (0, 3)]
    else:
        pair = [each.get("before_value"), each.get("after_value")]
        told = together(pair if None not in pair else [each.get("before"), each.get("after")])
    return DriftRow(
        subject=str(each.get("feature") or "energy"),
        statistic=words(str(each["statistic"]).removeprefix("energy_")),
        horizon=str(horizon["horizon"]),
        before=told[0],
        after=told[1],
        effect=_signed(each.get("effect"), 2),
        z=_signed(each.get("z"), 1),
        limit=number(horizon.get("limit"), 1),
    )


def _flatten(numbers: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in numbers.items():
        if isinstance(value, Mapping):
            found += _flatten(value, f"{prefix}{name} ")
        elif not (isinstance(value, list) and value and isinstance(value[0], Mapping)):
            found.append((f"{prefix}{name}", value))
    return found


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return number(value)
    if isinstance(value, float):
        return significant(value, 4)
    if isinstance(value, list):
        return ", ".join(_text(each) for each in value)
    return str(value)


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str) or value is None else str(value)


def _signed(value: float | None, digits: int) -> str:
    if value is None:
        return ABSENT
    return ("+" if value >= 0 else "") + number(value, digits)


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
