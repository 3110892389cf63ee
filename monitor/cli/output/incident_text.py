"""The command line: an incident told to a person, plain words first and the numbers after them. Pure."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from monitor.cli.output.explanations import EXPLANATIONS, MAX_SHOWN_RANGES
from monitor.cli.output.tables import escape_unprintable, format_short_time, format_value
from storage.queries.incident_report import IncidentReport, ReportedOutlier

_MAX_SHOWN_EVENTS = 3
_MAX_SHOWN_FEATURES = 8
_WIDTH = 100


def format_incident(dossier: IncidentReport) -> str:
    """Return why an incident fired, in about a screenful."""
    numbers = dossier.details.get("opened", {})
    words = EXPLANATIONS.get(dossier.kind)
    sections = [
        [_format_title(dossier), *_wrap_text(f"{dossier.summary}.")],
        _format_section(
            "Why it fired", map(escape_unprintable, words(numbers)) if words is not None and numbers else ()
        ),
        _format_section("Keys that stand out", map(_format_suspect_key, numbers.get("keys", ()))),
        _format_section("The strangest events of its first window", _format_top_events(dossier, numbers)),
        _format_section("What happened", _format_transitions(dossier)),
        _format_section("The numbers when it opened", _format_details(numbers)),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _format_title(dossier: IncidentReport) -> str:
    if dossier.resolved_at_us is None:
        life = f"open since {format_short_time(dossier.opened_at_us)}"
    else:
        life = f"from {format_short_time(dossier.opened_at_us)} to {format_short_time(dossier.resolved_at_us)}"
    kind = dossier.kind.replace("_", " ")
    return f"Incident {dossier.id}: {kind} on {dossier.stream}, {dossier.severity}, {life}"


def _format_section(title: str, lines: Iterable[str]) -> list[str]:
    body = [f"  {line}" for line in lines]
    return [title, *body] if body else []


def _wrap_text(text: str) -> list[str]:
    return [f"  {line}" for line in textwrap.wrap(escape_unprintable(text), width=_WIDTH)]


def _format_suspect_key(lift: Mapping[str, Any]) -> str:
    return escape_unprintable(
        f"{lift['key']}: {lift['outliers']:,} of its {lift['events']:,} events, "
        f"{lift['times_the_others']:.3g} times the others' rate (p {lift['p_value']:.2g})"
    )


def _format_top_events(dossier: IncidentReport, numbers: Mapping[str, Any]) -> Iterator[str]:
    """Give the events that were stored with the incident, explained; of older incidents what the tables have."""
    stored = numbers.get("strangest")
    if not stored:
        yield from map(_format_event, dossier.top_outliers)
        return
    by_place = {(each.topic, each.partition, each.source_offset): each for each in dossier.top_outliers}
    for event in stored[:_MAX_SHOWN_EVENTS]:
        known = by_place.get((event["topic"], event["partition"], event["offset"]))
        if not event["reasons"] and known is not None:
            yield _format_event(known)
            continue
        called = "".join(f", {what} {event[what]}" for what in ("key", "id") if event[what])
        yield escape_unprintable(
            f"energy {event['energy']:.5g} at {format_short_time(event['time'])}, "
            f"{event['topic']}[{event['partition']}] {event['offset']}{called}"
        )
        yield from (f"  {_format_contribution(each)}" for each in event["reasons"])


def _format_contribution(reason: Mapping[str, Any]) -> str:
    value, expected, low, high = (reason[name] for name in ("value", "expected", "low", "high"))
    if None in (value, expected, low, high, reason["cost"]):
        return escape_unprintable(f"{reason['feature']} {format_value(value)}: beyond all measure")
    return escape_unprintable(
        f"{reason['feature']} {value:.5g} where {expected:.5g} is expected ({low:.5g} to {high:.5g}): "
        f"{reason['cost']:.3g} nats of the energy"
    )


def _format_event(event: ReportedOutlier) -> str:
    name = f"{event.topic}[{event.partition}] {event.source_offset}"
    called = "".join(f", {what} {value}" for what, value in (("key", event.key), ("id", event.event_id)) if value)
    features = [_format_feature(event, name) for name in list(event.features)[:_MAX_SHOWN_FEATURES]]
    more = (
        [f"and {len(event.features) - _MAX_SHOWN_FEATURES} more"] if len(event.features) > _MAX_SHOWN_FEATURES else []
    )
    return escape_unprintable(
        f"energy {event.energy:.5g} at {format_short_time(event.event_time_us)}, {name}{called}: {', '.join(features + more)}"
    )


def _format_feature(event: ReportedOutlier, name: str) -> str:
    mean = event.training_means.get(name)
    usual = "" if mean is None else f" (training mean {mean:.4g})"
    return f"{name} {format_value(event.features[name])}{usual}"


def _format_transitions(dossier: IncidentReport) -> Iterator[str]:
    for step in dossier.transitions:
        told = ", ".join(f"{channel} {state}" for channel, state in step.notification_states.items())
        yield escape_unprintable(
            f"{format_short_time(step.at_us)}  {step.transition}: {step.summary}" + (f" [{told}]" if told else "")
        )


def _format_details(numbers: Mapping[str, Any]) -> Iterator[str]:
    """Give all that was stored: what stands alone as a paragraph, then a line for each group."""
    shown = {name: value for name, value in numbers.items() if name not in ("strangest", "keys") and value != []}
    groups = {name: value for name, value in shown.items() if isinstance(value, Mapping | list)}
    alone = {name: value for name, value in shown.items() if name not in groups}
    yield from textwrap.wrap(_format_pairs(alone), width=_WIDTH)
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
