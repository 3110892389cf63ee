"""Build the rules of a stream from the settings."""

import hashlib
import json
from collections.abc import Callable, Sequence

from config.settings import Settings
from config.stream_rules import StreamRules
from config.units import to_us


def build_stream_rules(
    settings: Settings, stream: str, *, channels_for: Callable[..., Sequence[str]] | None = None
) -> StreamRules:
    """Build the rules of a stream: the settings in microseconds, with the routes of its incidents.

    Args:
        settings: All settings.
        stream: Name of the stream.
        channels_for: The routes, called as `NotifySettings.channels_for`. None: those of the settings.
    """
    stream_settings, notify = settings.streams[stream], settings.notify
    channels_for = channels_for or notify.channels_for
    window, threshold, alerts = stream_settings.window, stream_settings.threshold, stream_settings.alerts
    return StreamRules(
        stream=stream,
        config_hash=config_hash(settings, stream),
        timezone=stream_settings.timezone,
        size_us=to_us(window.size),
        grace_us=to_us(window.grace),
        ahead_us=to_us(window.ahead),
        idle_timeout_us=to_us(window.idle_timeout),
        max_future_us=to_us(window.max_future) if stream_settings.source.type == "file" else None,
        percentile=threshold.percentile,
        method=threshold.method,
        look_back_us=to_us(threshold.look_back),
        refresh=threshold.refresh,
        adopt_after_us=to_us(threshold.adopt_after),
        per_week=alerts.false_alarms.per_week,
        min_outliers=alerts.min_outliers,
        min_ratio=alerts.min_ratio,
        max_dead_letter_ratio=alerts.max_dead_letter_ratio,
        resolve_after=alerts.resolve_after,
        repeat_interval_us=to_us(alerts.repeat_interval),
        horizons_us=tuple(to_us(length) for length in alerts.drift.horizons),
        min_effect=alerts.drift.min_effect,
        max_age_us=to_us(notify.max_age),
        channels=lambda kind, severity: channels_for(stream=stream, kind=kind, severity=severity),
    )


def config_hash(settings: Settings, stream: str) -> str:
    """Return a short hash of a stream's settings; an incident stores the settings that it was opened under."""
    shown = json.dumps(settings.masked()["streams"][stream], sort_keys=True, default=str)
    return hashlib.sha256(shown.encode()).hexdigest()[:16]
