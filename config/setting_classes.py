"""The class of each setting: when a changed value becomes valid, and whether all processes of a stream share it.

The settings of a stream that its processes share are stored in the database (`storage.control.settings`), so that
processes with different configuration files decide alike.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import ValidationError

from config.auto import AUTO, AUTO_KEYS, DEFAULT_WINDOW, RESOLVED
from config.errors import ConfigError
from config.sizing import choose_ahead
from config.streams import StreamSettings
from config.units import parse_duration, to_us

SettingClass = Literal["fold", "judge", "model", "local"]
"""When a changed setting becomes valid.

`fold`: from a boundary of the windows before and after the change, after every event that may be stored by then.
`judge`: from a tick after the sealed windows. `model`: with the next model. `local`: at the start of a process; each
process uses its own file.
"""

SharedClass = Literal["fold", "judge", "model"]
SHARED_CLASSES: tuple[SharedClass, ...] = ("fold", "judge", "model")

_STREAM_KEYS: Mapping[SharedClass, tuple[str, ...]] = {
    "fold": (
        "window.size",
        "window.grace",
        "window.ahead",
        "window.max_future",
        "window.idle_timeout",
        "event.format",
        "event.time.field",
        "event.time.unit",
        "event.key",
        "event.id",
        "event.missing",
        "event.max_size",
        "model.refit.over",
    ),
    "judge": (
        "timezone",
        "threshold.method",
        "threshold.percentile",
        "threshold.season",
        "threshold.look_back",
        "threshold.refresh",
        "threshold.adopt_after",
        "alerts.false_alarms",
        "alerts.min_outliers",
        "alerts.min_ratio",
        "alerts.max_dead_letter_ratio",
        "alerts.max_late_ratio",
        "alerts.stalled_after",
        "alerts.resolve_after",
        "alerts.repeat_interval",
        "alerts.reopen_within",
        "alerts.silence_after",
        "alerts.drift.horizons",
        "alerts.drift.min_effect",
        "model.refit.every",
    ),
    "model": (
        "event.features",
        "event.derive",
        "model.kind",
        "model.n_components",
        "model.covariance_type",
        "model.warm_up",
        "model.contamination",
        "model.random_state",
    ),
}
_OPTIONAL_SECTIONS = {"event.time": ("field", "unit"), "model.refit": ("every", "over")}
"""Sections that may be null, with their keys."""

_LOCAL_KEYS = (
    "database.url",
    "database.url_file",
    "device",
    "kafka.bootstrap_servers",
    "kafka.client",
    "kafka.max_decompressed_size",
    "streams.*.source.type",
    "streams.*.source.topics",
    "streams.*.source.group_id",
    "streams.*.source.start",
    "streams.*.source.path",
    "streams.*.source.seed",
    "streams.*.source.rate",
    "streams.*.source.events",
    "streams.*.source.speed",
    "streams.*.source.features",
    "streams.*.source.partitions",
    "streams.*.source.first_burst",
    "streams.*.source.burst_every",
    "streams.*.source.burst_length",
    "streams.*.source.burst_share",
    "streams.*.source.drift_after",
    "streams.*.source.drift_shift",
    "notify.max_age",
    "notify.deadline",
    "notify.channels.*.type",
    "notify.channels.*.url",
    "notify.channels.*.url_file",
    "notify.channels.*.secret",
    "notify.channels.*.secret_file",
    "notify.channels.*.headers",
    "notify.channels.*.timeout",
    "notify.channels.*.concurrency",
    "notify.channels.*.token",
    "notify.channels.*.token_file",
    "notify.channels.*.channel",
    "notify.channels.*.webhook_url",
    "notify.channels.*.webhook_url_file",
    "notify.channels.*.api_url",
    "notify.channels.*.server",
    "notify.channels.*.tls",
    "notify.channels.*.username",
    "notify.channels.*.password",
    "notify.channels.*.password_file",
    "notify.channels.*.from",
    "notify.channels.*.to",
    "notify.channels.*.group_wait",
    "notify.channels.*.template",
    "notify.channels.*.urls",
    "notify.channels.*.labels",
    "notify.channels.*.interval",
    "notify.channels.*.routing_key",
    "notify.channels.*.routing_key_file",
    "notify.channels.*.topic",
    "notify.channels.*.bootstrap_servers",
    "notify.channels.*.client",
    "notify.routes.*.match.stream",
    "notify.routes.*.match.kind",
    "notify.routes.*.match.severity",
    "notify.routes.*.channels",
    "notify.heartbeats.*.url",
    "notify.heartbeats.*.url_file",
    "notify.heartbeats.*.every",
    "retention.scores",
    "retention.outliers",
    "retention.windows",
    "retention.dead_letters",
    "retention.thresholds",
    "retention.incidents",
    "retention.notifications",
    "retention.gaps",
    "retention.samples",
    "retention.rollups",
    "retention.drift_cells",
    "retention.models",
    "logging.level",
    "logging.format",
    "metrics.listen",
    "metrics.partitions",
    "server.listen",
    "server.url",
    "server.hosts",
    "server.tokens.*.name",
    "server.tokens.*.token",
    "server.tokens.*.token_file",
    "server.tokens.*.scopes",
    "server.auth_proxy.header",
    "server.auth_proxy.trusted_proxies",
    "server.auth_proxy.scopes",
    "server.link_secret",
    "server.link_secret_file",
    "server.trace_url",
)

SETTING_CLASSES: Mapping[str, SettingClass] = {
    **{f"streams.*.{key}": name for name, keys in _STREAM_KEYS.items() for key in keys},
    **dict.fromkeys(_LOCAL_KEYS, "local"),
}
"""The class of each setting by its dotted key; `*` stands for the name of a stream or channel or a route's number."""

Content = Mapping[str, Any]
"""The settings of one class of a stream by their dotted keys, as in the configuration file."""


def select_shared(settings: StreamSettings) -> dict[SharedClass, dict[str, Any]]:
    """Return the shared settings of a stream by their classes."""
    values = dict(_flatten(settings.model_dump(mode="json"), ""))
    return {name: {key: values[key] for key in keys if key in values} for name, keys in _STREAM_KEYS.items()}


def hash_shared(contents: Mapping[SharedClass, Content]) -> str:
    """Return a short hash of the shared settings of a stream, equal for files that differ in local settings only."""
    text = json.dumps({name: contents[name] for name in SHARED_CLASSES}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def apply_shared(settings: StreamSettings, contents: Mapping[SharedClass, Content]) -> StreamSettings:
    """Return the settings of a stream with the stored values of its shared settings.

    Keys that this version does not know are ignored; keys that are not stored keep the value of the file. Sizes that
    are `auto` get the value that the first model found. The classes may come from different revisions, so that rules
    that concern two sections are not checked.

    Raises:
        ConfigError: A stored value is not valid in this version.
    """
    own = settings.model_dump(mode="json")
    known = set().union(*_STREAM_KEYS.values())
    for content in contents.values():
        for key, value in content.items():
            if key in known:
                _assign(own, key, found_value(content, key) if key in AUTO_KEYS else value)
    if own["event"]["time"] is not None and own["event"]["time"]["field"] is None:
        own["event"]["time"] = None
    if own["model"]["refit"] is not None and None in own["model"]["refit"].values():
        own["model"]["refit"] = None
    changed: dict[str, Any] = {"timezone": own["timezone"]}
    try:
        for name in ("event", "model", "window", "threshold", "alerts"):
            changed[name] = type(getattr(settings, name)).model_validate(own[name])
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join([name, *(str(each) for each in problem["loc"])])
        raise ConfigError(
            f"the stored setting {key} is not valid in this version of Outrider: {problem['msg']}; run the version "
            "that stored it, or change the setting in the configuration file of that version"
        ) from error
    return settings.model_copy(update=changed)


def found_value(content: Content, key: str) -> Any:
    """Return the stored value of a setting; for one that is `auto` the value that was found, if it has been."""
    value = content[key]
    return content.get(f"{RESOLVED}{key}", value) if value == AUTO else value


def window_lengths_us(content: Content) -> tuple[int, int]:
    """Return the length of the windows and their lead, grace + ahead, of settings of the class `fold`, in microseconds.

    Before the value of an `auto` length has been found, it is the default.
    """
    size, ahead = found_value(content, "window.size"), content["window.ahead"]
    size = DEFAULT_WINDOW if size == AUTO else parse_duration(size)
    ahead = choose_ahead(size) if ahead == AUTO else parse_duration(ahead)
    return to_us(size), to_us(parse_duration(content["window.grace"])) + to_us(ahead)


def changed_keys(before: Content, after: Content) -> list[str]:
    """Return the keys with different values, sorted."""
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def _flatten(values: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of nested sections with their values; both keys of an absent section are null."""
    for name, value in values.items():
        key = f"{path}{name}"
        if isinstance(value, dict):
            yield from _flatten(value, f"{key}.")
        elif key in _OPTIONAL_SECTIONS and value is None:
            yield from ((f"{key}.{name}", None) for name in _OPTIONAL_SECTIONS[key])
        else:
            yield key, value


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of nested sections, of which some may be null."""
    *path, last = key.split(".")
    for name in path:
        if values.get(name) is None:
            values[name] = {}
        values = values[name]
    values[last] = value
