"""The initial configuration file written by `init`, derived from a sample of a stream's events."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from config.sizing import DEFAULT_WARM_UP, FEW_EVENTS, SizingAdvice, choose_ahead, choose_grace
from config.streams import DriftSettings
from config.units import format_duration

_PLAIN_SCALAR = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:[.-][A-Za-z0-9_]+)*")
_RESERVED_SCALARS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})

MIN_HORIZON_WINDOWS = 4
"""Number of windows of the shortest drift horizon. The counts of a window show what a shorter one could."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StarterConfig:
    """The content of the initial configuration file.

    `rejected_fields` are pairs of a field and the reason. The source is `topic` on the brokers `servers`, or the
    file `path`. `derives` proposes derived features. `client` are the given options of the Kafka client.
    """

    stream: str
    features: Sequence[str] | Literal["auto"]
    advice: SizingAdvice
    lateness_us: int = 0
    encoding: str = "json"
    servers: Sequence[str] = ()
    client: Mapping[str, object] | None = None
    topic: str | None = None
    path: str | None = None
    time: str | None = None
    key: str | None = None
    event_id: str | None = None
    complete_share: float = 1.0
    derives: bool = False
    rejected_fields: Sequence[tuple[str, str]] = ()
    sampled_events: int = 0


def render_starter(starter: StarterConfig) -> str:
    """Render the annotated configuration, which can be used without changes."""
    origin = _escape_comment(starter.topic or starter.path or "")
    return "\n".join(
        [
            f"# Written by `outrider init` from {starter.sampled_events:,} events of {origin}.",
            "# All other keys have defaults. `outrider check` validates the configuration and prints all settings.",
            "",
            "database:",
            "  # A file in the working directory of outrider. PostgreSQL: postgresql://user@host/name.",
            "  url: sqlite:///outrider.db",
            *_kafka_lines(starter),
            "",
            "streams:",
            f"  {starter.stream}:",
            *_source_lines(starter),
            *_event_lines(starter),
            *_model_lines(starter.advice),
            *_window_lines(starter),
            *_threshold_lines(starter.advice),
            *_alert_lines(starter.advice),
            "",
            "# Notification channels. Default: the log only. For example:",
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
        "      # Start position if no position is stored. Default: earliest, which includes existing events; latest",
        "      # excludes them.",
        "      start: earliest",
    ]


def _event_lines(starter: StarterConfig) -> list[str]:
    lines = ["    event:"]
    if starter.encoding != "json":
        lines.append(f"      format: {starter.encoding}")
    if starter.features == "auto":
        lines += ["      # All numbers of a record. They have no names.", "      features: auto"]
    else:
        lines += ["      # Numbers that describe an event.", "      features:"]
        lines += [f"        - {quote_scalar(name)}" for name in starter.features]
    if starter.rejected_fields:
        lines.append("        # Refused as features:")
        lines += [
            f"        #   {_escape_comment(name)}: {_escape_comment(reason)}"
            for name, reason in starter.rejected_fields
        ]
    if starter.time is not None:
        lines += ["      # The event time.", f"      time: {{field: {quote_scalar(starter.time)}, unit: auto}}"]
    elif starter.encoding != "float32":
        time_source = "the time of reading" if starter.path else "the broker's timestamp"
        lines.append(f"      # The event time is {time_source}. To use a field: time: {{field: NAME}}")
    if starter.key is not None:
        lines += ["      # Stored with each score.", f"      key: {quote_scalar(starter.key)}"]
    if starter.event_id is not None:
        lines += ["      # Stored for joins with your own tables.", f"      id: {quote_scalar(starter.event_id)}"]
    if starter.derives:
        lines += [
            "      # The events of a key arrive regularly: the change of each field against its recent level and the",
            "      # roughness of its recent values are features too. Default: none.",
            "      derive: auto",
        ]
    if starter.complete_share < 0.99:
        lines += [
            f"      # Only {100 * starter.complete_share:.3g}% of the events have all features. Missing ones are",
            "      # replaced by the mean. Default: reject.",
            "      missing: mean",
        ]
    return lines


def _model_lines(advice: SizingAdvice) -> list[str]:
    return [
        "    model:",
        f"      # Training events of the first model. Default: {DEFAULT_WARM_UP}. Here: {advice.warm_up_reason}.",
        f"      warm_up: {advice.warm_up}",
    ]


def _window_lines(starter: StarterConfig) -> list[str]:
    window, ahead = starter.advice.window, choose_ahead(starter.advice.window)
    grace, grace_reason = choose_grace(starter.lateness_us)
    lines = [
        "    window:",
        "      # Length of a window. Default: 1m.",
        f"      # Here: {starter.advice.window_reason}.",
        f"      size: {format_duration(window)}",
    ]
    if ahead > choose_ahead(timedelta()):
        lines += ["      # The maximum lead of a partition: two windows.", f"      ahead: {format_duration(ahead)}"]
    return [
        *lines,
        f"      # Waiting time of a window for late events. Default: 10s. Here: {grace_reason}.",
        f"      grace: {format_duration(grace)}",
    ]


def _threshold_lines(advice: SizingAdvice) -> list[str]:
    lines = [
        "    threshold:",
        "      # Share of normal events below the threshold. Default: 99.5.",
        f"      # Here: {advice.percentile_reason}.",
        f"      percentile: {advice.percentile:g}",
        "      # Event time that a threshold is computed from. Default: 24h.",
        f"      # Here: {advice.look_back_reason}.",
        f"      look_back: {format_duration(advice.look_back)}",
    ]
    adopt_after = 10 * advice.window
    if adopt_after > timedelta(hours=24):
        lines += [
            "      # An open incident excludes its windows no longer than this. Default: 24h. Here: ten windows.",
            f"      adopt_after: {format_duration(adopt_after)}",
        ]
    if advice.window > timedelta(minutes=5):
        lines += [
            "      # Schedule of thresholds. Default: 5m. Here: once a window, since nothing changes within one.",
            f"      refresh: {format_duration(advice.window)}",
        ]
    return lines


def _alert_lines(advice: SizingAdvice) -> list[str]:
    lines = [
        "    alerts:",
        "      # The false-alarm budget of all kinds of incident together. Default: 1/week.",
        "      false_alarms: 1/week",
    ]
    default_horizons = DriftSettings().horizons
    horizons = [each for each in default_horizons if each >= MIN_HORIZON_WINDOWS * advice.window]
    if len(horizons) < len(default_horizons):
        lines += [
            "      # Horizons of the drift tests. Default: 10m, 1h, 1d. "
            f"Here: those of {MIN_HORIZON_WINDOWS} windows or more.",
            f"      drift: {{horizons: [{', '.join(map(format_duration, horizons))}]}}",
        ]
    if advice.window_events is not None and advice.window_events < FEW_EVENTS:
        lines += [
            "      # The smallest number of outliers in a spike's window. Default: 5.",
            f"      # Here: 3, since a window has about {max(1, round(advice.window_events))} events.",
            "      min_outliers: 3",
        ]
    return lines


def quote_scalar(text: str) -> str:
    """Quote any text so that YAML parses it back unchanged. ${ is escaped."""
    if _PLAIN_SCALAR.fullmatch(text) and text.lower() not in _RESERVED_SCALARS:
        return text
    escaped = text.replace("${", "$${").replace("\\", "\\\\").replace('"', '\\"')
    return (
        '"'
        + "".join(character if character.isprintable() else f"\\U{ord(character):08x}" for character in escaped)
        + '"'
    )


def _format_option(value: object) -> str:
    """Format an option. A reference to a variable, ${NAME}, is not escaped."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else json.dumps(value)


def _escape_comment(text: str) -> str:
    """Return the text with non-printable characters escaped, so that it cannot end its comment."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )
