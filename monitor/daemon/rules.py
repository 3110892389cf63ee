"""Build the rules of a stream from the settings."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from config.setting_classes import SHARED_CLASSES, Content, SharedClass, apply_shared
from config.settings import Settings
from config.stream_rules import RefitRules, RuleSchedule, StreamRules, WindowRules
from config.units import to_us
from monitor.daemon.settings_decision import last_row, start_of
from monitor.statistics.event_sample import DEFAULT_PERIOD_US, find_sample_size
from storage.control.settings import SettingRow


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
    refit = stream_settings.model.refit
    return StreamRules(
        stream=stream,
        config_hash=config_hash(settings, stream),
        timezone=stream_settings.timezone,
        size_us=to_us(window.size),
        grace_us=to_us(window.grace),
        ahead_us=to_us(window.ahead),
        idle_timeout_us=to_us(window.idle_timeout),
        max_future_us=None if stream_settings.source.type == "synthetic" else to_us(window.max_future),
        percentile=threshold.percentile,
        method=threshold.method,
        season=threshold.season,
        look_back_us=to_us(threshold.look_back),
        refresh=threshold.refresh,
        adopt_after_us=to_us(threshold.adopt_after),
        per_week=alerts.false_alarms.per_week,
        min_outliers=alerts.min_outliers,
        min_ratio=alerts.min_ratio,
        max_dead_letter_ratio=alerts.max_dead_letter_ratio,
        max_late_ratio=alerts.max_late_ratio,
        stalled_after_us=to_us(alerts.stalled_after),
        resolve_after=alerts.resolve_after,
        repeat_interval_us=to_us(alerts.repeat_interval),
        reopen_within_us=to_us(alerts.reopen_within),
        horizons_us=tuple(to_us(length) for length in alerts.drift.horizons),
        min_effect=alerts.drift.min_effect,
        max_age_us=to_us(notify.max_age),
        channels=lambda kind, severity: channels_for(stream=stream, kind=kind, severity=severity),
        sample_size=find_sample_size(to_us(window.size), DEFAULT_PERIOD_US if refit is None else to_us(refit.over)),
        refit=None if refit is None else RefitRules(every_us=to_us(refit.every), over_us=to_us(refit.over)),
    )


def build_rule_schedule(
    settings: Settings,
    stream: str,
    rows: Sequence[SettingRow],
    *,
    channels_for: Callable[..., Sequence[str]] | None = None,
) -> RuleSchedule:
    """Build the rules of a stream over event time from its stored settings; local settings are those of the file.

    Args:
        settings: All settings of the file.
        stream: Name of the stream.
        rows: The stored settings of the stream, at least one of each class.
        channels_for: As in `build_stream_rules`.

    Raises:
        ConfigError: A stored setting is not valid in this version.
    """
    starts = sorted({start_of(row) for row in rows})
    scopes = [
        {scope: last_row([row for row in rows if row.scope == scope], start_us).content for scope in SHARED_CLASSES}
        for start_us in starts
    ]
    rules = [
        build_stream_rules(with_shared(settings, stream, contents), stream, channels_for=channels_for)
        for contents in scopes
    ]
    fold_starts = {start_of(row) for row in rows if row.scope == "fold"}
    windows = tuple(
        WindowRules(
            valid_from_us=start_us,
            size_us=each.size_us,
            grace_us=each.grace_us,
            ahead_us=each.ahead_us,
            sample_size=each.sample_size,
        )
        for start_us, each in zip(starts, rules, strict=True)
        if start_us in fold_starts
    )
    changes = windows if len(windows) > 1 else ()
    return RuleSchedule(
        revision=max(row.revision for row in rows),
        rows=tuple(
            (start_us, replace(each, window_changes=changes)) for start_us, each in zip(starts, rules, strict=True)
        ),
    )


def with_shared(settings: Settings, stream: str, contents: Mapping[SharedClass, Content]) -> Settings:
    """Return the settings with stored values of the shared settings of a stream."""
    changed = apply_shared(settings.streams[stream], contents)
    return settings.model_copy(update={"streams": {**settings.streams, stream: changed}})


def config_hash(settings: Settings, stream: str) -> str:
    """Return a short hash of a stream's settings; an incident stores the settings that it was opened under."""
    shown = json.dumps(settings.masked()["streams"][stream], sort_keys=True, default=str)
    return hashlib.sha256(shown.encode()).hexdigest()[:16]
