"""Configuration: a first file for a stream, from what a sample of its events has shown: the text that `init` writes."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from config.sizing import DEFAULT_WARM_UP, SizingAdvice
from config.units import format_duration

_PLAIN_SCALAR = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:[.-][A-Za-z0-9_]+)*")
_RESERVED_SCALARS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


@dataclass(frozen=True, slots=True, kw_only=True)
class StarterConfig:
    """What the file says.

    `refused` are fields with the reason, `servers` and `topic` (or else `path`) where the events come from, `client`
    the options of the Kafka client as they were given.
    """

    stream: str
    features: Sequence[str] | Literal["auto"]
    advice: SizingAdvice
    encoding: str = "json"
    servers: Sequence[str] = ()
    client: Mapping[str, object] | None = None
    topic: str | None = None
    path: str | None = None
    time: str | None = None
    key: str | None = None
    event_id: str | None = None
    complete_share: float = 1.0
    rejected_fields: Sequence[tuple[str, str]] = ()
    sampled_events: int = 0


def render_starter(starter: StarterConfig) -> str:
    """Return the annotated configuration; it runs as it is."""
    advice, origin = starter.advice, _escape_comment(starter.topic or starter.path or "")
    return "\n".join(
        [
            f"# Written by `outrider init` from {starter.sampled_events:,} events of {origin}.",
            "# What is not here has a default; `outrider check` prints all of it and says whether it works.",
            "",
            "database:",
            "  # A file in the folder in which outrider runs. PostgreSQL: postgresql://user@host/name.",
            "  url: sqlite:///outrider.db",
            *_kafka_lines(starter),
            "",
            "streams:",
            f"  {starter.stream}:",
            *_source_lines(starter),
            *_event_lines(starter),
            "    model:",
            f"      # Events to fit the first model on. Default: {DEFAULT_WARM_UP}. Here: {advice.warm_up_reason}.",
            f"      warm_up: {advice.warm_up}",
            "    window:",
            f"      # How soon a spike can be judged. Default: 1m. Here: {advice.window_reason}",
            "      # has an outlier to expect, and shows smaller spikes.",
            f"      size: {format_duration(advice.window)}",
            *_ahead_lines(advice),
            f"      # How long a window waits for late events. Default: 10s. Here: {advice.grace_reason}.",
            f"      grace: {format_duration(advice.grace)}",
            "    threshold:",
            f"      # Share of normal events below the limit. Default: 99.5. Here: {advice.percentile_reason}.",
            f"      percentile: {advice.percentile:g}",
            *_look_back_lines(advice),
            "    alerts:",
            "      # False alarms that you accept, of all kinds together; limits are derived from it. Default: 1/week.",
            "      false_alarms: 1/week",
            "",
            "# Whom to tell. Default: the log only. For example:",
            "# notify:",
            "#   channels:",
            "#     ops: {type: webhook, url: 'https://alerts.example/outrider'}",
            "",
        ]
    )


def _kafka_lines(starter: StarterConfig) -> list[str]:
    if starter.topic is None:
        return []
    lines = ["kafka:", f"  bootstrap_servers: [{', '.join(map(quote_scalar, starter.servers))}]"]
    if starter.client:
        options = ", ".join(f"{quote_scalar(name)}: {_format_option(value)}" for name, value in starter.client.items())
        lines.append(f"  client: {{{options}}}")
    return lines


def _source_lines(starter: StarterConfig) -> list[str]:
    if starter.path is not None:
        return ["    source:", "      type: file", f"      path: {quote_scalar(starter.path)}"]
    return [
        "    source:",
        "      type: kafka",
        f"      topics: [{quote_scalar(starter.topic or '')}]",
        "      # Where to begin without a stored position. Default: earliest, so that what is there already is scored;",
        "      # latest leaves it out.",
        "      start: earliest",
    ]


def _event_lines(starter: StarterConfig) -> list[str]:
    lines = ["    event:"]
    if starter.encoding != "json":
        lines.append(f"      format: {starter.encoding}")
    if starter.features == "auto":
        lines += ["      # All numbers of a record, which have no names.", "      features: auto"]
    else:
        lines += ["      # Numbers that say how an event is.", "      features:"]
        lines += [f"        - {quote_scalar(name)}" for name in starter.features]
    if starter.rejected_fields:
        lines.append("        # Not taken:")
        lines += [
            f"        #   {_escape_comment(name)}: {_escape_comment(why)}" for name, why in starter.rejected_fields
        ]
    if starter.time is not None:
        lines += ["      # When an event happened.", f"      time: {{field: {quote_scalar(starter.time)}, unit: auto}}"]
    elif starter.encoding != "float32":
        what = "the time of reading" if starter.path else "the broker's timestamp"
        lines.append(f"      # No field is the time of an event, so {what} is. To name one: time: {{field: NAME}}")
    if starter.key is not None:
        lines += ["      # Kept beside each score.", f"      key: {quote_scalar(starter.key)}"]
    if starter.event_id is not None:
        lines += ["      # Kept for joins with your own tables.", f"      id: {quote_scalar(starter.event_id)}"]
    if starter.complete_share < 0.99:
        lines += [
            f"      # Only {100 * starter.complete_share:.3g}% of the events have all features; the mean stands in for",
            "      # what is missing. Default: reject.",
            "      missing: mean",
        ]
    return lines


def _ahead_lines(advice: SizingAdvice) -> list[str]:
    least = max(timedelta(minutes=10), 2 * advice.window)
    return (
        ["      # How far a partition may run ahead.", f"      ahead: {format_duration(least)}"]
        if least > timedelta(minutes=10)
        else []
    )


def _look_back_lines(advice: SizingAdvice) -> list[str]:
    if 10 * advice.window <= timedelta(hours=24):
        return []
    look_back = format_duration(10 * advice.window)
    return [
        "      # Event time that a limit looks back on, ten windows at least. Default: 24h.",
        f"      look_back: {look_back}",
        f"      adopt_after: {look_back}",
    ]


def quote_scalar(text: str) -> str:
    """Return a text as YAML reads it back, whatever is in it; ${ stands for itself."""
    if _PLAIN_SCALAR.fullmatch(text) and text.lower() not in _RESERVED_SCALARS:
        return text
    signs = text.replace("${", "$${").replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(sign if sign.isprintable() else f"\\U{ord(sign):08x}" for sign in signs) + '"'


def _format_option(value: object) -> str:
    """Return an option; a text of a variable, ${NAME}, stays one."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else json.dumps(value)


def _escape_comment(text: str) -> str:
    """Return a text that cannot end its comment."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
