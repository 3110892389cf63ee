"""Configuration: a first file for a stream, from what a sample of its events has shown: the text that `init` writes."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from config.sizing import WARM_UP, Advice
from config.units import format_duration

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:[.-][A-Za-z0-9_]+)*")
_NOT_TEXT = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Starter:
    """What the file says.

    `refused` are fields with the reason, `servers` and `topic` (or else `path`) where the events come from, `client`
    the options of the Kafka client as they were given.
    """

    stream: str
    features: Sequence[str] | Literal["auto"]
    advice: Advice
    encoding: str = "json"
    servers: Sequence[str] = ()
    client: Mapping[str, object] | None = None
    topic: str | None = None
    path: str | None = None
    time: str | None = None
    key: str | None = None
    identity: str | None = None
    complete_share: float = 1.0
    refused: Sequence[tuple[str, str]] = ()
    sampled: int = 0


def starter_text(starter: Starter) -> str:
    """Return the annotated configuration; it runs as it is."""
    advice, origin = starter.advice, _comment(starter.topic or starter.path or "")
    return "\n".join(
        [
            f"# Written by `outrider init` from {starter.sampled:,} events of {origin}.",
            "# What is not here has a default; `outrider check` prints all of it and says whether it works.",
            "",
            "database:",
            "  # A file in the folder in which outrider runs. PostgreSQL: postgresql://user@host/name.",
            "  url: sqlite:///outrider.db",
            *_cluster(starter),
            "",
            "streams:",
            f"  {starter.stream}:",
            *_source(starter),
            *_event(starter),
            "    model:",
            f"      # Events to fit the first model on. Default: {WARM_UP}. Here: {advice.warm_up_why}.",
            f"      warm_up: {advice.warm_up}",
            "    window:",
            f"      # How soon a spike can be judged. Default: 1m. Here: {advice.window_why}",
            "      # has an outlier to expect, and shows smaller spikes.",
            f"      size: {format_duration(advice.window)}",
            *_ahead(advice),
            f"      # How long a window waits for late events. Default: 10s. Here: {advice.grace_why}.",
            f"      grace: {format_duration(advice.grace)}",
            "    threshold:",
            f"      # Share of normal events below the limit. Default: 99.5. Here: {advice.percentile_why}.",
            f"      percentile: {advice.percentile:g}",
            *_look_back(advice),
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


def _cluster(starter: Starter) -> list[str]:
    if starter.topic is None:
        return []
    lines = ["kafka:", f"  bootstrap_servers: [{', '.join(map(quoted, starter.servers))}]"]
    if starter.client:
        options = ", ".join(f"{quoted(name)}: {_value(value)}" for name, value in starter.client.items())
        lines.append(f"  client: {{{options}}}")
    return lines


def _source(starter: Starter) -> list[str]:
    if starter.path is not None:
        return ["    source:", "      type: file", f"      path: {quoted(starter.path)}"]
    return [
        "    source:",
        "      type: kafka",
        f"      topics: [{quoted(starter.topic or '')}]",
        "      # Where to begin without a stored position. Default: earliest, so that what is there already is scored;",
        "      # latest leaves it out.",
        "      start: earliest",
    ]


def _event(starter: Starter) -> list[str]:
    lines = ["    event:"]
    if starter.encoding != "json":
        lines.append(f"      format: {starter.encoding}")
    if starter.features == "auto":
        lines += ["      # All numbers of a record, which have no names.", "      features: auto"]
    else:
        lines += ["      # Numbers that say how an event is.", "      features:"]
        lines += [f"        - {quoted(name)}" for name in starter.features]
    if starter.refused:
        lines.append("        # Not taken:")
        lines += [f"        #   {_comment(name)}: {_comment(why)}" for name, why in starter.refused]
    if starter.time is not None:
        lines += ["      # When an event happened.", f"      time: {{field: {quoted(starter.time)}, unit: auto}}"]
    elif starter.encoding != "float32":
        what = "the time of reading" if starter.path else "the broker's timestamp"
        lines.append(f"      # No field is the time of an event, so {what} is. To name one: time: {{field: NAME}}")
    if starter.key is not None:
        lines += ["      # Kept beside each score.", f"      key: {quoted(starter.key)}"]
    if starter.identity is not None:
        lines += ["      # Kept for joins with your own tables.", f"      id: {quoted(starter.identity)}"]
    if starter.complete_share < 0.99:
        lines += [
            f"      # Only {100 * starter.complete_share:.3g}% of the events have all features; the mean stands in for",
            "      # what is missing. Default: reject.",
            "      missing: mean",
        ]
    return lines


def _ahead(advice: Advice) -> list[str]:
    least = max(timedelta(minutes=10), 2 * advice.window)
    return (
        ["      # How far a partition may run ahead.", f"      ahead: {format_duration(least)}"]
        if least > timedelta(minutes=10)
        else []
    )


def _look_back(advice: Advice) -> list[str]:
    if 10 * advice.window <= timedelta(hours=24):
        return []
    look_back = format_duration(10 * advice.window)
    return [
        "      # Event time that a limit looks back on, ten windows at least. Default: 24h.",
        f"      look_back: {look_back}",
        f"      adopt_after: {look_back}",
    ]


def quoted(text: str) -> str:
    """Return a text as YAML reads it back, whatever is in it; ${ stands for itself."""
    if _PLAIN.fullmatch(text) and text.lower() not in _NOT_TEXT:
        return text
    signs = text.replace("${", "$${").replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(sign if sign.isprintable() else f"\\U{ord(sign):08x}" for sign in signs) + '"'


def _value(value: object) -> str:
    """Return an option; a text of a variable, ${NAME}, stays one."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else json.dumps(value)


def _comment(text: str) -> str:
    """Return a text that cannot end its comment."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
