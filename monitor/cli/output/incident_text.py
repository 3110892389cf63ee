"""Text of an incident: an explanation first, then the stored numbers. Pure."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any

from config.number_format import format_together
from config.time_format import format_short_time
from monitor.cli.output.reason_text import format_reasons
from monitor.cli.output.tables import escape_unprintable, format_value
from monitor.incidents.explanations import COMMAND_HINTS, EXPLANATIONS, MAX_SHOWN_RANGES
from storage.queries.incident_report import IncidentReport, ReportedOutlier, ReportedTransition, ReportedVerb

_MAX_SHOWN_EVENTS = 3
_MAX_SHOWN_FEATURES = 8
_WIDTH = 100


def format_incident(report: IncidentReport) -> str:
    """Return why an incident opened, in about a screenful of text."""
    numbers = report.details.get("opened", {})
    sections = [
        [_format_title(report), *_wrap_text(f"{report.summary}.")],
        _format_section("Why it opened", map(escape_unprintable, _explain(report.kind, numbers))),
        _format_section("Suspect keys", map(_format_suspect_key, numbers.get("keys", ()))),
        _format_section("Events of highest energy in its first window", _format_top_events(report, numbers)),
        _format_section("Timeline", _format_timeline(report)),
        _format_section("Numbers at opening", _format_details(numbers)),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _format_title(report: IncidentReport) -> str:
    if report.resolved_at_us is None:
        period = f"open since {format_short_time(report.opened_at_us)}"
    else:
        period = f"from {format_short_time(report.opened_at_us)} to {format_short_time(report.resolved_at_us)}"
    kind = report.kind.replace("_", " ")
    judged = "" if report.verdict is None else f", {report.verdict.replace('_', ' ')}"
    acknowledged = report.resolved_at_us is None and report.acknowledged_by is not None
    taken = f", acknowledged by {report.acknowledged_by}" if acknowledged else ""
    return escape_unprintable(
        f"Incident {report.id}: {kind} on {report.stream}, {report.severity}, {period}{judged}{taken}"
    )


def _explain(kind: str, numbers: Mapping[str, Any]) -> Iterator[str]:
    explain = EXPLANATIONS.get(kind)
    if explain is None or not numbers:
        return
    yield from explain(numbers)
    if kind in COMMAND_HINTS:
        yield COMMAND_HINTS[kind]


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
        yield from (f"  {line}" for line in format_reasons(event["reasons"]))


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


def _format_timeline(report: IncidentReport) -> Iterator[str]:
    """Yield the transitions with their messages (event times) and the verbs (times of storing), as they were stored."""
    lines = [(step.recorded_at_us, 1, _format_transition(step)) for step in report.transitions]
    lines += [(verb.recorded_at_us, 0, _format_verb(verb)) for verb in report.verbs]
    yield from (escape_unprintable(line) for _, _, line in sorted(lines, key=itemgetter(0, 1)))


def _format_transition(step: ReportedTransition) -> str:
    states = ", ".join(f"{channel} {state}" for channel, state in step.notification_states.items())
    return f"{format_short_time(step.at_us)}  {step.transition}: {step.summary}" + (f" [{states}]" if states else "")


def _format_verb(verb: ReportedVerb) -> str:
    windows = verb.effects.get("windows")
    changed = f" ({windows:,} windows change their place in the calibration)" if windows else ""
    note = f": {verb.note}" if verb.note else ""
    name = verb.verb.replace("_", "-")
    keys = "".join(f" {key}" for key in verb.effects.get("keys", ()))
    return f"{format_short_time(verb.recorded_at_us)}  {name}{keys} by {verb.who}{note}{changed}, recorded at this time"


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
