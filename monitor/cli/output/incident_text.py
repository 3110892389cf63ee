"""Text of an incident: an explanation first, then the stored numbers. Pure."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from config.number_format import format_together
from config.time_format import format_short_time
from monitor.cli.output.explanations import EXPLANATIONS, MAX_SHOWN_RANGES
from monitor.cli.output.tables import escape_unprintable, format_value
from storage.queries.incident_report import IncidentReport, ReportedOutlier

_MAX_SHOWN_EVENTS = 3
_MAX_SHOWN_FEATURES = 8
_MIN_DEPARTURE_DEVIATIONS = 3.0
_WIDTH = 100


def format_incident(report: IncidentReport) -> str:
    """Return why an incident opened, in about a screenful of text."""
    numbers = report.details.get("opened", {})
    explain = EXPLANATIONS.get(report.kind)
    sections = [
        [_format_title(report), *_wrap_text(f"{report.summary}.")],
        _format_section(
            "Why it opened", map(escape_unprintable, explain(numbers)) if explain is not None and numbers else ()
        ),
        _format_section("Suspect keys", map(_format_suspect_key, numbers.get("keys", ()))),
        _format_section("Events of highest energy in its first window", _format_top_events(report, numbers)),
        _format_section("Transitions", _format_transitions(report)),
        _format_section("Numbers at opening", _format_details(numbers)),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _format_title(report: IncidentReport) -> str:
    if report.resolved_at_us is None:
        period = f"open since {format_short_time(report.opened_at_us)}"
    else:
        period = f"from {format_short_time(report.opened_at_us)} to {format_short_time(report.resolved_at_us)}"
    kind = report.kind.replace("_", " ")
    return f"Incident {report.id}: {kind} on {report.stream}, {report.severity}, {period}"


def _format_section(title: str, lines: Iterable[str]) -> list[str]:
    body = [f"  {line}" for line in lines]
    return [title, *body] if body else []


def _wrap_text(text: str) -> list[str]:
    return [f"  {line}" for line in textwrap.wrap(escape_unprintable(text), width=_WIDTH)]


def _format_suspect_key(suspect: Mapping[str, Any]) -> str:
    return escape_unprintable(
        f"{suspect['key']}: {suspect['outliers']:,} of its {suspect['events']:,} events, "
        f"{suspect['times_the_others']:.3g} times the rate of the others (p {suspect['p_value']:.2g})"
    )


def _format_top_events(report: IncidentReport, numbers: Mapping[str, Any]) -> Iterator[str]:
    """Yield the explained events stored with the incident; for older incidents the rows of the outlier table."""
    stored = numbers.get("strangest")
    if not stored:
        yield from map(_format_event, report.top_outliers)
        return
    by_position = {(each.topic, each.partition, each.source_offset): each for each in report.top_outliers}
    for event in stored[:_MAX_SHOWN_EVENTS]:
        outlier = by_position.get((event["topic"], event["partition"], event["offset"]))
        if not event["reasons"] and outlier is not None:
            yield _format_event(outlier)
            continue
        names = "".join(f", {field} {event[field]}" for field in ("key", "id") if event[field])
        yield escape_unprintable(
            f"energy {event['energy']:.5g} at {format_short_time(event['time'])}, "
            f"{event['topic']}[{event['partition']}] {event['offset']}{names}"
        )
        yield from (f"  {line}" for line in _format_reasons(event["reasons"]))


def _format_reasons(reasons: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the text of each line of features; incidents of older versions have features without contributions."""
    if reasons and "line_contribution" not in reasons[0]:
        yield from map(_format_cost, reasons)
        return
    for _, line in groupby(reasons, key=itemgetter("line")):
        yield _format_line(list(line))


def _format_line(features: Sequence[Mapping[str, Any]]) -> str:
    """Return values, usual ranges, expected value and share of features that move together."""
    first = features[0]
    names = [str(each["feature"]) for each in features]
    if first["line_features"] > len(features):
        names.append(f"{first['line_features'] - len(features):,} more")
    texts = [_format_usual(each) for each in features]
    return escape_unprintable(
        f"{_join_words(names)}: {', '.join(value for value, _ in texts)}; "
        f"usually {_join_words([usual for _, usual in texts])}{_format_expected(features)}; {_format_share(first)}"
    )


def _format_expected(features: Sequence[Mapping[str, Any]]) -> str:
    """Return the value that the other features lead to.

    Features that move together are expected from each other, and are often unusual together. The one that departs most
    from the others is named, if it departs by more than three deviations. An expected value far outside of the usual
    range is not shown: it is extrapolated from other features that are unusual themselves.
    """
    expectable = [each for each in features if _is_expected_near_usual(each)]
    if not expectable:
        return ""
    most = max(expectable, key=lambda each: abs(each["z"]))
    several = most["line_features"] > 1
    if several and abs(most["z"]) <= _MIN_DEPARTURE_DEVIATIONS:
        return ""
    expected = format_together((most["expected"], most["value"]), 5)[0]
    name = f" for {most['feature']}" if several else ""
    return f", {expected} expected{name} from the other features"


def _is_expected_near_usual(feature: Mapping[str, Any]) -> bool:
    """Return True if the expected value is outside of the usual range by at most the width of the range."""
    z, value, expected, low, high = (feature[name] for name in ("z", "value", "expected", "low", "high"))
    return None not in (z, value, expected, low, high) and 2 * low - high <= expected <= 2 * high - low


def _join_words(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _format_usual(feature: Mapping[str, Any]) -> tuple[str, str]:
    """Return a value and its usual range as text."""
    value, low, high = (feature[name] for name in ("value", "low", "high"))
    if None in (value, low, high):
        return format_value(value), "unknown"
    value, low, high = format_together((value, low, high), 5)
    return value, f"{low} to {high}"


def _format_share(line: Mapping[str, Any]) -> str:
    contribution, share = line["line_contribution"], line["line_share"]
    if contribution is None:
        return "no finite contribution"
    size = f"{abs(contribution):.3g} nats" if share is None else f"{abs(share):.0%} of the excess energy"
    return f"makes the event likelier by {size}" if contribution < 0 else size


def _format_cost(reason: Mapping[str, Any]) -> str:
    value, expected, low, high = (reason[name] for name in ("value", "expected", "low", "high"))
    if None in (value, expected, low, high, reason["cost"]):
        return escape_unprintable(f"{reason['feature']} {format_value(value)}: no finite explanation")
    value, expected, low, high = format_together((value, expected, low, high), 5)
    return escape_unprintable(
        f"{reason['feature']} {value} where {expected} is expected ({low} to {high}): "
        f"{reason['cost']:.3g} nats of the energy"
    )


def _format_event(event: ReportedOutlier) -> str:
    name = f"{event.topic}[{event.partition}] {event.source_offset}"
    names = "".join(f", {field} {value}" for field, value in (("key", event.key), ("id", event.event_id)) if value)
    features = [_format_feature(event, name) for name in list(event.features)[:_MAX_SHOWN_FEATURES]]
    more = (
        [f"and {len(event.features) - _MAX_SHOWN_FEATURES} more"] if len(event.features) > _MAX_SHOWN_FEATURES else []
    )
    return escape_unprintable(
        f"energy {event.energy:.5g} at {format_short_time(event.event_time_us)}, {name}{names}: "
        f"{', '.join(features + more)}"
    )


def _format_feature(event: ReportedOutlier, name: str) -> str:
    mean = event.training_means.get(name)
    value = event.features[name]
    if mean is None or not isinstance(value, int | float):
        return f"{name} {format_value(value)}" + ("" if mean is None else f" (training mean {mean:.4g})")
    value_text, mean_text = format_together((value, mean), 5)
    return f"{name} {value_text} (training mean {mean_text})"


def _format_transitions(report: IncidentReport) -> Iterator[str]:
    for step in report.transitions:
        states = ", ".join(f"{channel} {state}" for channel, state in step.notification_states.items())
        yield escape_unprintable(
            f"{format_short_time(step.at_us)}  {step.transition}: {step.summary}" + (f" [{states}]" if states else "")
        )


def _format_details(numbers: Mapping[str, Any]) -> Iterator[str]:
    """Yield the stored details: single values as a paragraph, then one line per group."""
    shown = {name: value for name, value in numbers.items() if name not in ("strangest", "keys") and value != []}
    groups = {name: value for name, value in shown.items() if isinstance(value, Mapping | list)}
    singles = {name: value for name, value in shown.items() if name not in groups}
    yield from textwrap.wrap(_format_pairs(singles), width=_WIDTH)
    for name, value in groups.items():
        if isinstance(value, Mapping):
            yield f"{name}: {_format_pairs(value)}"
        elif value and isinstance(value[0], Mapping):
            yield from (f"{name}: {_format_pairs(_scalar_values(each))}" for each in value[:MAX_SHOWN_RANGES])
        else:
            yield f"{name} {format_value(value)}"


def _scalar_values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not isinstance(value, Mapping | list)}


def _format_pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {format_value(value)}" for name, value in values.items())
