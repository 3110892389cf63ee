"""From the settings to the rules that the pure functions go by."""

import hashlib
import json

from config.settings import Settings
from config.units import to_us
from monitor.control_plane.control_plane import ControlSettings
from monitor.control_plane.drift_step import DriftRule
from monitor.control_plane.judge import JudgeRule
from monitor.incidents.lifecycle import LifecyclePolicy
from monitor.incidents.rows import IncidentPolicy
from monitor.models.promotion import PromotionRule
from monitor.models.shadow_gate import GateRule
from monitor.pipeline.fold import WindowRule
from monitor.thresholds.percentile import exceedance
from monitor.thresholds.tick import ThresholdRule


def build_window_rule(settings: Settings, stream: str) -> WindowRule:
    """Return how the stream's events fall into windows."""
    window, source = settings.streams[stream].window, settings.streams[stream].source
    return WindowRule(
        size_us=to_us(window.size),
        grace_us=to_us(window.grace),
        ahead_us=to_us(window.ahead),
        max_future_us=to_us(window.max_future) if source.type == "file" else None,
    )


def build_control_settings(settings: Settings, stream: str, stream_id: int) -> ControlSettings:
    """Return what the stream's control plane goes by."""
    own = settings.streams[stream]
    size_us = to_us(own.window.size)
    return ControlSettings(
        stream=stream,
        stream_id=stream_id,
        size_us=size_us,
        grace_us=to_us(own.window.grace),
        refresh=own.threshold.refresh,
        threshold=ThresholdRule(
            percentile=own.threshold.percentile,
            method=own.threshold.method,
            look_back_us=to_us(own.threshold.look_back),
            adopt_after_us=to_us(own.threshold.adopt_after),
            size_us=size_us,
            per_week=own.alerts.false_alarms.per_week,
        ),
        judge=JudgeRule(
            size_us=size_us,
            per_week=own.alerts.false_alarms.per_week,
            min_outliers=own.alerts.min_outliers,
            min_ratio=own.alerts.min_ratio,
            max_dead_letter_ratio=own.alerts.max_dead_letter_ratio,
            config_hash=config_hash(settings, stream),
            incident_policy=build_incident_policy(settings, stream),
        ),
    )


def build_promotion_rule(settings: Settings, stream: str, stream_id: int) -> PromotionRule:
    """Return what a promotion of one of the stream's models goes by."""
    own = settings.streams[stream]
    control = build_control_settings(settings, stream, stream_id)
    return PromotionRule(
        stream=stream,
        stream_id=stream_id,
        threshold=control.threshold,
        gate=GateRule(
            percentile=own.threshold.percentile,
            per_week=own.alerts.false_alarms.per_week,
            size_us=control.size_us,
            min_outliers=own.alerts.min_outliers,
            min_ratio=own.alerts.min_ratio,
        ),
    )


def build_drift_rule(settings: Settings, stream: str, stream_id: int) -> DriftRule:
    """Return how drift of the stream is looked for."""
    own = settings.streams[stream]
    return DriftRule(
        stream=stream,
        stream_id=stream_id,
        size_us=to_us(own.window.size),
        horizons_us=tuple(to_us(length) for length in own.alerts.drift.horizons),
        min_effect=own.alerts.drift.min_effect,
        per_week=own.alerts.false_alarms.per_week,
        exceedance=exceedance(own.threshold.percentile),
        config_hash=config_hash(settings, stream),
        incident_policy=build_incident_policy(settings, stream),
    )


def build_incident_policy(settings: Settings, stream: str) -> IncidentPolicy:
    """Return how the stream's incidents live, and who is told."""
    own, notify = settings.streams[stream], settings.notify
    return IncidentPolicy(
        size_us=to_us(own.window.size),
        lifecycle=LifecyclePolicy(
            resolve_after=own.alerts.resolve_after, repeat_interval_us=to_us(own.alerts.repeat_interval)
        ),
        channels=lambda kind, severity: notify.channels_for(stream=stream, kind=kind.value, severity=severity.value),
        max_age_us=to_us(notify.max_age),
    )


def config_hash(settings: Settings, stream: str) -> str:
    """Return a short hash of a stream's settings, to tell under which of them an incident opened."""
    shown = json.dumps(settings.masked()["streams"][stream], sort_keys=True, default=str)
    return hashlib.sha256(shown.encode()).hexdigest()[:16]
