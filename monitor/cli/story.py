"""The command line: an incident told to a person, plain words first and the numbers after them. Pure."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from monitor.cli.reasons import SHOWN_RANGES, WORDS
from monitor.cli.tables import printable, readable, short_time
from storage.dossier import Dossier, StrangeEvent

_SHOWN_EVENTS = 3
_SHOWN_FEATURES = 8
_WIDTH = 100


def story_of(dossier: Dossier) -> str:
    """Return why an incident fired, in about a screenful."""
    numbers = dossier.details.get("opened", {})
    words = WORDS.get(dossier.kind)
    sections = [
        [_title(dossier), *_wrapped(f"{dossier.summary}.")],
        _section("Why it fired", map(printable, words(numbers)) if words is not None and numbers else ()),
        _section("Keys that stand out", map(_key, numbers.get("keys", ()))),
        _section("The strangest events of its first window", _strangest(dossier, numbers)),
        _section("What happened", _steps(dossier)),
        _section("The numbers when it opened", _numbers(numbers)),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _title(dossier: Dossier) -> str:
    if dossier.resolved_at_us is None:
        life = f"open since {short_time(dossier.opened_at_us)}"
    else:
        life = f"from {short_time(dossier.opened_at_us)} to {short_time(dossier.resolved_at_us)}"
    kind = dossier.kind.replace("_", " ")
    return f"Incident {dossier.id}: {kind} on {dossier.stream}, {dossier.severity}, {life}"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    body = [f"  {line}" for line in lines]
    return [title, *body] if body else []


def _wrapped(text: str) -> list[str]:
    return [f"  {line}" for line in textwrap.wrap(printable(text), width=_WIDTH)]


def _key(lift: Mapping[str, Any]) -> str:
    return printable(
        f"{lift['key']}: {lift['outliers']:,} of its {lift['events']:,} events, "
        f"{lift['times_the_others']:.3g} times the others' rate (p {lift['p_value']:.2g})"
    )


def _strangest(dossier: Dossier, numbers: Mapping[str, Any]) -> Iterator[str]:
    """Give the events that were stored with the incident, explained; of older incidents what the tables have."""
    stored = numbers.get("strangest")
    if not stored:
        yield from map(_event, dossier.strangest)
        return
    by_place = {(each.topic, each.partition, each.source_offset): each for each in dossier.strangest}
    for event in stored[:_SHOWN_EVENTS]:
        known = by_place.get((event["topic"], event["partition"], event["offset"]))
        if not event["reasons"] and known is not None:
            yield _event(known)
            continue
        called = "".join(f", {what} {event[what]}" for what in ("key", "id") if event[what])
        yield printable(
            f"energy {event['energy']:.5g} at {short_time(event['time'])}, "
            f"{event['topic']}[{event['partition']}] {event['offset']}{called}"
        )
        yield from (f"  {_reason(each)}" for each in event["reasons"])


def _reason(reason: Mapping[str, Any]) -> str:
    value, expected, low, high = (reason[name] for name in ("value", "expected", "low", "high"))
    if None in (value, expected, low, high, reason["cost"]):
        return printable(f"{reason['feature']} {readable(value)}: beyond all measure")
    return printable(
        f"{reason['feature']} {value:.5g} where {expected:.5g} is expected ({low:.5g} to {high:.5g}): "
        f"{reason['cost']:.3g} nats of the energy"
    )


def _event(event: StrangeEvent) -> str:
    name = f"{event.topic}[{event.partition}] {event.source_offset}"
    called = "".join(f", {what} {value}" for what, value in (("key", event.key), ("id", event.event_id)) if value)
    features = [_feature(event, name) for name in list(event.features)[:_SHOWN_FEATURES]]
    more = [f"and {len(event.features) - _SHOWN_FEATURES} more"] if len(event.features) > _SHOWN_FEATURES else []
    return printable(
        f"energy {event.energy:.5g} at {short_time(event.event_time_us)}, {name}{called}: {', '.join(features + more)}"
    )


def _feature(event: StrangeEvent, name: str) -> str:
    mean = event.training_means.get(name)
    usual = "" if mean is None else f" (training mean {mean:.4g})"
    return f"{name} {readable(event.features[name])}{usual}"


def _steps(dossier: Dossier) -> Iterator[str]:
    for step in dossier.steps:
        told = ", ".join(f"{channel} {state}" for channel, state in step.told.items())
        yield printable(f"{short_time(step.at_us)}  {step.transition}: {step.summary}" + (f" [{told}]" if told else ""))


def _numbers(numbers: Mapping[str, Any]) -> Iterator[str]:
    """Give all that was stored: what stands alone as a paragraph, then a line for each group."""
    shown = {name: value for name, value in numbers.items() if name not in ("strangest", "keys") and value != []}
    groups = {name: value for name, value in shown.items() if isinstance(value, Mapping | list)}
    alone = {name: value for name, value in shown.items() if name not in groups}
    yield from textwrap.wrap(_named(alone), width=_WIDTH)
    for name, value in groups.items():
        if isinstance(value, Mapping):
            yield f"{name}: {_named(value)}"
        elif value and isinstance(value[0], Mapping):
            yield from (f"{name}: {_named(_flat(each))}" for each in value[:SHOWN_RANGES])
        else:
            yield f"{name} {readable(value)}"


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not isinstance(value, Mapping | list)}


def _named(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {readable(value)}" for name, value in values.items())
