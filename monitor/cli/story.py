"""The command line: an incident told to a person, plain words first and the numbers after them. Pure."""

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from monitor.cli.tables import printable, readable, short_time
from storage.dossier import Dossier, StrangeEvent

_SHOWN_FEATURES = 8
_SHOWN_RANGES = 10
_WIDTH = 100


def story_of(dossier: Dossier) -> str:
    """Return why an incident fired, in about a screenful."""
    numbers = dossier.details.get("opened", {})
    words = _WORDS.get(dossier.kind)
    sections = [
        [_title(dossier), f"  {printable(dossier.summary)}."],
        _section("Why it fired", words(numbers) if words is not None and numbers else ()),
        _section("The strangest events of its first window", map(_event, dossier.strangest)),
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


def _spike(numbers: Mapping[str, Any]) -> Iterator[str]:
    limit, law = numbers["threshold"], numbers["law"]
    yield (
        f"An event is an outlier when its energy is above {limit['value']:.5g} nats "
        f"({limit['lower']:.5g} to {limit['upper']:.5g} with 90% confidence)."
    )
    yield (
        f"That is the {limit['percentile']:g} percentile of {limit['n']:,} energies (method {limit['method']}) "
        f"under model {numbers['model_version']}."
    )
    yield (
        f"Of {numbers['events']:,} events such a window has {numbers['outliers_expected']:.3g} outliers "
        f"on average; this one has {numbers['outliers']:,}, and {numbers['fires_at']:,} or more fire."
    )
    yield (
        f"The limit is drawn so that a clean window fires with a probability below {numbers['alpha']:.2g}: "
        f"the spikes' half of the promise, {numbers['promise_per_week']:g} a week."
    )
    yield f"As many or more outliers come by chance with a probability of {numbers['p_value']:.2g}."
    yield f"How counts vary is {_learned(law)}; their variance is {law['dispersion']:.3g} times their mean."
    if numbers["dead_letters"]:
        yield f"Not judged with it: {numbers['dead_letters']:,} records that could not be read."


def _learned(law: Mapping[str, Any]) -> str:
    if law["state"] == "learned":
        return f"learned from {law['windows']:,} windows"
    return f"provisional, with {law['windows']:,} windows seen so far"


def _dead_letters(numbers: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"{numbers['dead_letters']:,} of {numbers['records']:,} records of the window were refused, "
        f"{numbers['share']:.1%}; more than {numbers['limit']:.1%} (alerts.max_dead_letter_ratio) is an incident."
    )
    yield "The view dead_letter_history has each with its reason, its offset and the beginning of its bytes."


def _gap(numbers: Mapping[str, Any]) -> Iterator[str]:
    yield f"{numbers['offsets']:,} offsets could not be read; their events are in no score and no window."
    more = len(numbers["ranges"]) - _SHOWN_RANGES
    if more > 0:
        yield f"Below are the first {_SHOWN_RANGES} of their ranges; gap_history has {more:,} more."


_WORDS: Mapping[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "spike": _spike,
    "dead_letters": _dead_letters,
    "gap": _gap,
}


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
    groups = {name: value for name, value in numbers.items() if isinstance(value, Mapping | list)}
    alone = {name: value for name, value in numbers.items() if name not in groups}
    yield from textwrap.wrap(_named(alone), width=_WIDTH)
    for name, value in groups.items():
        if isinstance(value, Mapping):
            yield f"{name}: {_named(value)}"
        elif value and isinstance(value[0], Mapping):
            yield from (f"{name}: {_named(each)}" for each in value[:_SHOWN_RANGES])
        else:
            yield f"{name} {readable(value)}"


def _named(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {readable(value)}" for name, value in values.items())
