"""The columns of the status of a stream, from the stored rows and the settings, for `outrider status`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

from config.settings import Settings
from config.stream_rules import RuleSchedule
from config.time_format import format_optional_time, format_time
from config.units import format_duration
from monitor.cli.output.budget_text import describe_spike_budget
from monitor.cli.output.reach_text import describe_pending, find_milestones
from monitor.cli.output.season_text import describe_season
from monitor.cli.output.tables import Row
from monitor.daemon.rules import build_stream_rules
from monitor.health.stream_health import HealthState, StreamHealth
from monitor.models.refit import find_due
from monitor.thresholds.tick import load_count_model
from storage.control.habitual_keys import load_habitual_keys
from storage.control.health import HELD_STATE
from storage.control.warm_up import WarmUpProgress
from storage.database.engine import Database
from storage.database.tables import FOREVER_US
from storage.queries.health import HealthRow, read_health
from storage.queries.status import StreamStatus, load_stream_ids, load_stream_status

STATUS_COLUMNS = (
    "stream",
    "state",
    "running",
    "warm_up_events",
    "warm_up_wanted",
    "warm_up_left_s",
    "lag",
    "last_event_time",
    "last_event_age_s",
    "last_commit",
    "last_commit_age_s",
    "sealed_until",
    "model_version",
    "model_kind",
    "threshold",
    "threshold_lower",
    "threshold_upper",
    "threshold_n",
    "threshold_percentile",
    "threshold_method",
    "promise",
    "drift",
    "open_incidents",
    "dead_letters_last_hour",
    "notifications_pending",
    "notifications_dead",
    "notifications_oldest_age_s",
    "notifications_last_error",
    "incidents",
    "sources",
    "jobs",
    "warm_up_records",
    "warm_up_rejected",
    "warm_up_rejections",
    "warm_up_caught_up",
    "warm_up_events_per_s",
    "warm_up_fits_early_in_s",
    "replicas",
    "health",
    "health_since",
    "health_reason",
    "held",
    "late_share_last_hour",
    "problems",
    "pending",
    "never_reached",
    "refit",
    "derived",
    "season",
    "habitual_keys",
    "condition",
    "condition_since",
    "condition_reason",
    "proof",
)


def read_status_rows(db: Database, settings: Settings, health: Mapping[str, StreamHealth]) -> list[Row]:
    """Return the status of each configured and each stored stream, the configured ones first.

    Args:
        db: The database.
        settings: All settings.
        health: The health of the stored streams, by name.
    """
    stored = load_stream_ids(db)
    view = read_health(db)
    names = list(dict.fromkeys([*settings.streams, *stored]))
    return [
        _build_row(load_stream_status(db, stored[name], lease=f"control:{name}"), settings)
        | {"habitual_keys": _habitual_keys(db, stored[name])}
        | _health_columns([each for each in view if each.stream == name])
        | _condition_columns(health.get(name))
        if name in stored
        else dict.fromkeys(STATUS_COLUMNS) | _empty_row(name)
        for name in names
    ]


def _condition_columns(health: StreamHealth | None) -> dict[str, Any]:
    """Return the state of a stream as on the page, with the times that prove it."""
    if health is None:  # stored since the facts were read
        return {"condition": HealthState.UNKNOWN.value, "condition_since": None, "condition_reason": None, "proof": {}}
    proof = health.proof
    return {
        "condition": health.state.value,
        "condition_since": format_optional_time(health.since_us),
        "condition_reason": health.reason,
        "proof": {
            "report_age_s": proof.report_age_s,
            "lease_holder": proof.lease_holder,
            "lease_renewed_age_s": proof.lease_renewed_s,
            "last_commit_age_s": proof.last_commit_age_s,
            "lag_events": proof.lag_events,
            "waiting_s": proof.waiting_s,
        },
    }


def _habitual_keys(db: Database, stream_id: int) -> list[dict[str, Any]]:
    return [
        {
            "key": each.key,
            "rate": each.rate,
            "windows": each.windows,
            "since": format_time(each.since_us),
            "until": format_time(each.until_us) if each.accepted_by is None else None,
            "accepted_by": each.accepted_by,
            "accepted_at": format_optional_time(each.accepted_at_us),
        }
        for each in load_habitual_keys(db, stream_id)
    ]


def _empty_row(name: str) -> dict[str, Any]:
    return {
        "stream": name,
        "state": "never run",
        "running": False,
        "open_incidents": 0,
        "dead_letters_last_hour": 0,
        "late_share_last_hour": None,
        "notifications_pending": 0,
        "notifications_dead": 0,
        "incidents": [],
        "sources": [],
        "replicas": [],
        "jobs": [],
        "health": "never_run",
        "problems": [],
        "held": [],
        "pending": [],
        "never_reached": [],
        "habitual_keys": [],
        "condition": HealthState.UNKNOWN.value,
        "condition_reason": "it has never run",
        "proof": {},
    }


def _health_columns(health: Sequence[HealthRow]) -> dict[str, Any]:
    """Return the columns of the view `health` for one stream. A state that is not well is also the `state`."""
    overall, parts = health[0], health[1:]
    columns = {
        "health": overall.state,
        "health_since": format_optional_time(overall.since_us),
        "health_reason": overall.reason,
        "problems": [
            {
                "component": each.component,
                "state": each.state,
                "since": format_optional_time(each.since_us),
                "reason": each.reason,
            }
            for each in parts
            if not each.is_well
        ],
        "held": [
            {
                "partition": each.component.removeprefix("partition "),
                "since": format_optional_time(each.since_us),
                "reason": each.reason,
            }
            for each in parts
            if each.state == HELD_STATE
        ],
    }
    is_shown = not overall.is_well and overall.state != "not_running"
    return columns | ({"state": overall.state.replace("_", " ")} if is_shown else {})


def _build_row(status: StreamStatus, settings: Settings) -> dict[str, Any]:
    model, threshold = status.model, status.threshold
    warm_up = _warm_up_progress(status, settings)
    return {
        "stream": status.name,
        "state": _stream_state(status),
        "running": status.is_lease_held,
        **_warm_up_columns(warm_up),
        "lag": 0 if _at_end(status) else None,
        "last_event_time": format_optional_time(status.last_event_us),
        "last_event_age_s": _age_s(status, status.last_event_us),
        "last_commit": format_optional_time(status.last_commit_us),
        "last_commit_age_s": _age_s(status, status.last_commit_us),
        "sealed_until": format_optional_time(status.sealed_until_us),
        "model_version": None if model is None else model.version,
        "model_kind": None if model is None else model.kind,
        "derived": [] if model is None else model.derived_fields,
        "threshold": None if threshold is None else threshold.threshold,
        "threshold_lower": None if threshold is None else threshold.lower,
        "threshold_upper": None if threshold is None else threshold.upper,
        "threshold_n": None if threshold is None else threshold.n,
        "threshold_percentile": None if threshold is None else threshold.percentile,
        "threshold_method": None if threshold is None else threshold.method,
        "promise": _spike_budget(status, settings),
        "season": _season(status, settings),
        "drift": _drift_state(status, settings),
        **_reach_columns(status, settings),
        "refit": _refit_state(status, settings),
        "open_incidents": len(status.open_incidents),
        "dead_letters_last_hour": status.dead_letters_last_hour,
        "late_share_last_hour": status.late_share_last_hour,
        "notifications_pending": status.notification_counts.get("pending", 0),
        "notifications_dead": status.notification_counts.get("dead", 0),
        "notifications_oldest_age_s": _age_s(status, status.oldest_pending_us),
        "notifications_last_error": status.last_notification_error,
        "incidents": [
            {
                "id": each.id,
                "kind": each.kind,
                "severity": each.severity,
                "opened_at": format_time(each.opened_at_us),
                "summary": each.summary,
            }
            for each in status.open_incidents
        ],
        "sources": [
            {
                "topic": each.topic,
                "partition": each.partition,
                "incarnation": each.incarnation,
                "next_offset": each.next_offset,
                "last_event_time": format_optional_time(each.last_event_us),
                "last_commit": format_optional_time(each.committed_at_us),
                "at_end": each.idle_until_us > status.now_us,
            }
            for each in status.sources
        ],
        "replicas": [
            {
                "owner": each.owner,
                "version": each.version,
                "settings": each.settings_hash,
                "has_other_settings": each.settings_hash != status.settings_hash,
            }
            for each in status.replicas
        ],
        "jobs": [
            {
                "name": each.name,
                "last_success_age_s": _age_s(status, each.succeeded_at_us),
                "last_failure_age_s": _age_s(status, each.failed_at_us),
                "last_error": each.last_error,
            }
            for each in status.jobs
        ],
    }


def _stream_state(status: StreamStatus) -> str:
    if status.model is None:
        return "warming up" if status.is_lease_held else "warming up, stopped"
    if status.sources and all(each.idle_until_us == FOREVER_US for each in status.sources):
        return "ended"
    return "running" if status.is_lease_held else "stopped"


def _warm_up_progress(status: StreamStatus, settings: Settings) -> WarmUpProgress | None:
    """Return the progress of the warm-up; None when there is a model. A stopped warm-up has no remaining time."""
    if status.model is not None:
        return None
    stream_settings = settings.streams.get(status.name)
    progress = WarmUpProgress.from_details(status.details, stream_settings.model.warm_up if stream_settings else 0)
    if status.is_lease_held:
        return progress
    return replace(progress, left_s=None, caught_up=False, events_per_s=None, fits_early_in_s=None)


def _warm_up_columns(progress: WarmUpProgress | None) -> dict[str, Any]:
    if progress is None:
        return {name: None for name in STATUS_COLUMNS if name.startswith("warm_up_")}
    return {
        "warm_up_events": min(progress.events, progress.wanted),
        "warm_up_wanted": progress.wanted,
        "warm_up_left_s": progress.left_s,
        "warm_up_records": progress.records,
        "warm_up_rejected": progress.rejected,
        "warm_up_rejections": [asdict(each) for each in progress.rejections],
        "warm_up_caught_up": progress.caught_up,
        "warm_up_events_per_s": progress.events_per_s,
        "warm_up_fits_early_in_s": progress.fits_early_in_s,
    }


def _at_end(status: StreamStatus) -> bool:
    """Return whether the owner has just reached the end of every log; only then the lag is known, as 0."""
    return bool(status.sources) and all(each.idle_until_us > status.now_us for each in status.sources)


def _spike_budget(status: StreamStatus, settings: Settings) -> str | None:
    stream_settings = settings.streams.get(status.name)
    if stream_settings is None or status.threshold is None or status.events_per_window is None:
        return None
    return describe_spike_budget(load_count_model(status.threshold.details), status.events_per_window, stream_settings)


def _season(status: StreamStatus, settings: Settings) -> str | None:
    stream_settings = settings.streams.get(status.name)
    if stream_settings is None or status.threshold is None:
        return None
    return describe_season(status.threshold, stream_settings.threshold.season)


def _drift_state(status: StreamStatus, settings: Settings) -> dict[str, str] | None:
    """Return for each horizon `watched`, or the reason why drift is not tested yet."""
    stream_settings = settings.streams.get(status.name)
    if stream_settings is None or not status.drift_state:
        return None
    waiting = status.drift_state.get("waiting", {})
    lengths = [
        format_duration(each) for each in stream_settings.alerts.drift.horizons if each >= stream_settings.window.size
    ]
    cycle_us = status.drift_state.get("cycle_us")
    cycle = None if cycle_us is None else format_duration(timedelta(microseconds=cycle_us))
    lengths += [] if cycle is None or cycle in lengths else [cycle]
    return {length: waiting.get(length, "watched") for length in lengths}


def _reach_columns(status: StreamStatus, settings: Settings) -> dict[str, list[str]]:
    """Return what the stream has not reached yet, and what it never reaches with its settings."""
    stream_settings = settings.streams.get(status.name)
    if stream_settings is None or status.threshold is None or not status.events_per_window:
        return {"pending": [], "never_reached": []}
    count_model = load_count_model(status.threshold.details)
    rate_s = status.events_per_window / (status.window_size_us / 1e6)
    found = find_milestones(stream_settings, rate_s, count_model)
    return {
        "pending": list(describe_pending(stream_settings, rate_s, count_model, status.threshold.method)),
        "never_reached": [f"{each.name}: {each.text}" for each in found if each.after_us is None],
    }


def _refit_state(status: StreamStatus, settings: Settings) -> dict[str, Any] | None:
    """Return the last refit, what became of it, and when the next one is due; None without refits."""
    last, rules = status.last_refit, None
    if status.name in settings.streams:
        rules = RuleSchedule.constant(build_stream_rules(settings, status.name))
    next_us = None if rules is None else find_due(rules, last, status.sealed_until_us)
    if last is None and next_us is None:
        return None
    return {
        "due": None if last is None else format_time(last.due_us),
        "state": None if last is None else last.state,
        "reason": None if last is None else last.details.get("reason"),
        "gate": None if last is None else format_optional_time(last.gate_us),
        "next_due": format_optional_time(next_us),
    }


def _age_s(status: StreamStatus, time_us: int | None) -> float | None:
    return None if time_us is None else (status.now_us - time_us) / 1e6
