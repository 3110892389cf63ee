"""Meaning of the columns of the SQL views: one text per column, for the SQL reference and for users of the views."""

from __future__ import annotations

from collections.abc import Mapping

VIEWS: Mapping[str, str] = {
    "score_history": "One row per scored event.",
    "outlier_history": "One row per outlier, with its features.",
    "window_history": "One row per judged window that has events or dead letters.",
    "threshold_history": "The threshold schedule: one row per tick and per activation of a model.",
    "incident_history": "One row per incident.",
    "verdict_history": "One row per verb that a person applied to an incident.",
    "mute_history": "One row per mute, with the number of messages that it held back.",
    "notification_history": "One row per message: one transition of an incident on one channel.",
    "dead_letter_history": "Records that the codec rejected.",
    "drift_history": "Drift statistics of the horizons that were tested.",
    "calibration_history": "State of the count model at each tick, with the configured and realised false-alarm rate.",
    "gap_history": "Ranges of offsets that could not be read.",
    "health": "The present state of each stream, of what it depends on, and of failing jobs.",
}
"""The meaning of a row of each view."""

_SHARED: Mapping[str, str] = {
    "stream": "Name of the stream.",
    "topic": "Topic, or path of the file.",
    "partition": "Partition of the topic; 0 for a file.",
    "source_offset": "Offset of the record in its source.",
    "incarnation": "Number of the source's incarnation; it grows when a topic is re-created or a position is reset.",
    "event_time": "Time of the event.",
    "event_time_us": "Time of the event, in microseconds since 1970 (UTC).",
    "stored_at": "Time of storing, by the clock of the database.",
    "stored_at_us": "Time of storing, in microseconds since 1970 (UTC).",
    "stored_day": "Day of storing, in days since 1970; the partition key on PostgreSQL.",
    "recorded_at": "Time of storing, by the clock of the database.",
    "recorded_at_us": "Time of storing, in microseconds since 1970 (UTC).",
    "key": "Key of the event, or NULL.",
    "event_id": "Value of the field `event.id`, or NULL.",
    "energy": "-log p(x) under the model, in nats (float32).",
    "threshold": "Energy above which an event is an outlier, in nats.",
    "threshold_id": "Identifier of the row of `threshold_history`.",
    "source_id": "Identifier of the source.",
    "is_outlier": "Whether the energy exceeds the threshold.",
    "model_version": "Version of the model within the stream.",
    "features": "Features of the event, as a JSON object by name.",
    "habitual": "True if the events of its key usually are outliers and are expected at this time.",
    "window_start": "Start of the window, inclusive.",
    "window_end": "End of the window, exclusive.",
    "window_start_us": "Start of the window, in microseconds since 1970 (UTC).",
    "window_end_us": "End of the window, in microseconds since 1970 (UTC).",
    "details": "Every number that led to the row, as a JSON object.",
    "id": "Identifier of the row.",
    "summary": "The incident in one sentence.",
    "kind": "Kind of the incident.",
    "reason": "Reason, as a fixed name.",
    "incident_id": "Identifier of the row of `incident_history`.",
}

_OWN: Mapping[str, Mapping[str, str]] = {
    "window_history": {
        "events": "On-time events of the window.",
        "outliers": "On-time outliers of the window.",
        "expected_outliers": "Mean number of outliers of a clean window with as many events.",
        "late": "Late events that arrived while the window was that of their source's watermark.",
        "p_value": "Probability of as many or more outliers in a clean window.",
        "energy_p50": "Median of the energies.",
        "energy_p99": "99th percentile of the energies.",
        "energy_max": "Largest energy.",
        "dead": "Dead letters that belong to the window by the watermark of their source.",
        "judged_at": "Time of the judgement, by the clock of the database.",
        "filtered": "Records that the filter of the stream left out, by the watermark of their source.",
    },
    "threshold_history": {
        "computed_at": "Tick, in event time.",
        "computed_at_us": "Tick, in microseconds since 1970 (UTC).",
        "valid_from": "First window start that the threshold applies to.",
        "valid_from_us": "First window start that the threshold applies to, in microseconds since 1970 (UTC).",
        "percentile": "Configured percentile.",
        "lower": "Lower end of the 90% confidence interval, in nats.",
        "upper": "Upper end of the 90% confidence interval, in nats.",
        "n": "Number of energies that the threshold was computed from.",
        "method": "`reference`, `pooled`, `plain`, `anchored`, or a peaks-over-threshold variant.",
    },
    "incident_history": {
        "severity": "`warning` or `critical`.",
        "status": "`open` or `resolved`.",
        "opened_at": "Event time at which the incident was opened.",
        "opened_at_us": "Event time of opening, in microseconds since 1970 (UTC).",
        "resolved_at": "Event time at which the incident was resolved, or NULL.",
        "resolved_at_us": "Event time of the resolution, in microseconds since 1970 (UTC), or NULL.",
        "windows_fired": "Windows (or ticks, or horizons) that fired during the incident.",
        "clean_windows": "Consecutive clean windows since the last one that fired.",
        "acknowledged_at": "Time at which a person acknowledged the incident; NULL without a valid acknowledgement.",
        "acknowledged_by": "Name of that person, or NULL.",
        "verdict": "Verdict of a person: `accepted`, `false_alarm` or `confirmed`; NULL without one.",
    },
    "verdict_history": {
        "at": "Time of the verb, by the clock of the database.",
        "at_us": "Time of the verb, in microseconds since 1970 (UTC).",
        "verb": "`acknowledge`, `accept`, `false_alarm`, `confirm`, `resolve` or `reopen`.",
        "who": "Name of the person.",
        "note": "Note of the person, or NULL.",
        "before": "Status, verdict and acknowledgement of the incident before the verb, as a JSON object.",
        "after": "Status, verdict and acknowledgement of the incident after the verb, as a JSON object.",
        "effects": "Changes of the calibration, as a JSON object; they act from the next tick on.",
        "tick": "Last tick before the verb, in event time: later thresholds include its effects.",
    },
    "mute_history": {
        "stream": "Name of the stream, or NULL for all streams.",
        "kind": "Kind of the incidents, or NULL for all kinds.",
        "key": "Suspect key of the incidents, or NULL.",
        "incident_id": "Identifier of the only incident, or NULL.",
        "starts_at": "Start of the mute.",
        "starts_at_us": "Start of the mute, in microseconds since 1970 (UTC).",
        "ends_at": "End of the mute.",
        "ends_at_us": "End of the mute, in microseconds since 1970 (UTC).",
        "weekly": "Weekly window in the time zone of the stream, or NULL for the whole time.",
        "who": "Name of the person who added the mute.",
        "note": "Note of the person, or NULL.",
        "held_back": "Number of messages that were held back.",
        "created_at": "Time of adding, by the clock of the database.",
    },
    "notification_history": {
        "id": "Hash of the transition and the channel; the idempotency key of the message.",
        "transition": "`opened`, `escalated`, `repeated`, `acknowledged`, `resolved` or `reopened`.",
        "channel": "Name of the channel.",
        "state": "`pending`, `delivered`, `skipped`, `muted` or `dead`.",
        "attempts": "Number of delivery attempts.",
        "last_error": "Error of the last attempt, or NULL.",
        "created_at": "Time of storing, by the clock of the database.",
        "created_at_us": "Time of storing, in microseconds since 1970 (UTC).",
        "delivered_at": "Time of delivery, or NULL.",
        "next_attempt_at": "Time of the next attempt, or NULL.",
    },
    "dead_letter_history": {
        "detail": "Explanation of the reason.",
        "payload": "First 4 KiB of the record, or NULL beyond the quota.",
        "end_offset": "First offset after the rejected records.",
        "count": "Number of rejected records that the row represents.",
    },
    "drift_history": {
        "horizon": "Length of the horizon, as configured.",
        "statistic": "`rank`, `spread`, `pair`, `energy_rank`, `energy_spread` or `occupancy`.",
        "feature": "Feature, pair of features, or component by its centre; NULL for statistics of the energy.",
        "before": "Mean of the statistic over the baseline.",
        "after": "Mean of the statistic over the horizon.",
        "effect": "Difference in units of the training deviation.",
        "z": "Difference in units of its standard error.",
        "limit": "Value that |z| must exceed.",
        "drifted": "Whether |z| exceeds `limit` and the effect is at least `alerts.drift.min_effect`.",
    },
    "calibration_history": {
        "at": "Tick, in event time.",
        "at_us": "Tick, in microseconds since 1970 (UTC).",
        "promised_per_week": "Configured false alarms per week.",
        "realised_per_week": "Incidents opened in the look-back, scaled to a week.",
        "windows_learned": "Clean windows that the count model was learned from.",
        "dispersion": "Variance of the counts divided by that of a Poisson distribution.",
        "exceedance": "Share of clean events above the threshold.",
        "state": "`provisional` (below 300 windows, or 100 long ones), `learned` or `suspect`.",
        "true_alarms": "Incidents of the last 28 days with the verdict `confirmed`; spikes, slow rises and drift.",
        "false_alarms": "Incidents of the last 28 days with the verdict `false_alarm`.",
        "without_verdict": "Incidents of the last 28 days with neither of these verdicts.",
        "precision": "Share of true alarms among those with a verdict, or NULL.",
        "precision_lower": "Lower end of the 95% confidence interval of the precision (Clopper-Pearson), or NULL.",
        "precision_upper": "Upper end of the 95% confidence interval of the precision (Clopper-Pearson), or NULL.",
    },
    "health": {
        "stream": "Name of the stream; NULL for a job of all streams.",
        "component": (
            "`stream` for the stream as a whole; otherwise the part with a problem: `kafka`, `topic`, `replica NAME`, "
            "`incident ID`, `partition TOPIC[NUMBER]` or `job NAME`."
        ),
        "state": (
            "`running`, `warming_up`, `ended`, `starting`, `late`, `stalled`, `stopped`, `waiting_for_kafka` or "
            "`not_running`; of a part `unavailable`, `missing`, `failing`, or `held` (a partition that has records and "
            "does not move)."
        ),
        "since": "Time since which the state holds, or NULL.",
        "since_us": "Time since which the state holds, in microseconds since 1970 (UTC), or NULL.",
        "reason": "Reason in words, or NULL.",
    },
    "gap_history": {
        "from_offset": "First missing offset.",
        "to_offset": "First offset after the gap.",
    },
}


def describe_columns(view: str) -> Mapping[str, str]:
    """Return the meaning of every column of a view, by column name."""
    return {**_SHARED, **_OWN.get(view, {})}
