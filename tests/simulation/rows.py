"""The stored rows of one stream, without ids and without the columns of the wall clock."""

import json
from typing import Any

import numpy as np
import sqlalchemy as sa

from storage.database.engine import Database

Rows = list[tuple[Any, ...]]

_OF = ":stream_id"
# An incident that opened before the end of its window may be withdrawn at the end: it depends on the order of commits.
_WITHDRAWN = "SELECT incident_id FROM transitions WHERE summary LIKE 'withdrawn:%'"
_QUERIES = {
    "scores": f"""SELECT so.partition, s.source_offset, s.event_time_us, s.energy, t.valid_from_us, t.computed_at_us,
        s.key, s.event_id FROM scores s JOIN sources so ON so.id = s.source_id
        JOIN thresholds t ON t.id = s.threshold_id
        WHERE so.stream_id = {_OF} ORDER BY 1, 2""",
    "outliers": f"""SELECT so.partition, o.source_offset, o.event_time_us, o.energy, o.features FROM outliers o
        JOIN sources so ON so.id = o.source_id WHERE so.stream_id = {_OF} ORDER BY 1, 2""",
    "dead_letters": f"""SELECT so.partition, d.source_offset, d.end_offset, d.count, d.reason, d.detail
        FROM dead_letters d JOIN sources so ON so.id = d.source_id WHERE so.stream_id = {_OF} ORDER BY 1, 2""",
    "windows": f"""SELECT w.window_start_us, w.window_end_us, w.events, w.outliers, w.late, w.dead, w.filtered,
        w.expected, w.p_value, w.energy_p50, w.energy_p99, w.energy_max, w.payload, w.details, w.judged_at_us IS NULL,
        t.computed_at_us, w.fires_at FROM windows w LEFT JOIN thresholds t ON t.id = w.threshold_id
        WHERE w.stream_id = {_OF} ORDER BY 1""",
    "rollups": f"""SELECT resolution_us, start_us, end_us, windows, fired, events, outliers, late, dead, filtered,
        expected, most_outliers, fires_at, p_value, energy_p50, energy_p99, energy_max, model_version
        FROM window_rollups WHERE stream_id = {_OF} ORDER BY 1, 2""",
    "thresholds": f"""SELECT computed_at_us, valid_from_us, percentile, threshold, lower, upper, n, method, details
        FROM thresholds WHERE stream_id = {_OF} ORDER BY 1, 2""",
    "calibrations": f"""SELECT at_us, promised_per_week, windows_learned, dispersion, exceedance, state
        FROM calibrations WHERE stream_id = {_OF} ORDER BY 1""",
    "incidents": f"""SELECT kind, severity, status, window_start_us, opened_at_us, resolved_at_us, last_told_us,
        clean_windows, windows_fired, summary, details, contributions FROM incidents WHERE stream_id = {_OF}
        AND id NOT IN ({_WITHDRAWN}) ORDER BY opened_at_us, kind""",
    "transitions": f"""SELECT i.kind, i.window_start_us, t.transition, t.window_start_us, t.at_us, t.summary, t.details,
        (SELECT count(*) FROM notifications n WHERE n.transition_id = t.id) FROM transitions t
        JOIN incidents i ON i.id = t.incident_id WHERE t.stream_id = {_OF}
        AND i.id NOT IN ({_WITHDRAWN}) ORDER BY t.at_us, 1, 2, 3""",
    "drift_verdicts": f"""SELECT horizon, window_start_us, window_end_us, statistic, feature, before, after, effect, z,
        "limit", drifted FROM drift_verdicts WHERE stream_id = {_OF} ORDER BY 1, 2, 4, 5""",
    "drift_bases": f"SELECT horizon_us, season, from_us, until_us, base FROM drift_bases WHERE stream_id = {_OF} "
    "ORDER BY 1, 2, 3",
    "drift_days": f"SELECT base_from_us, start_us, end_us, events, outliers, fired, hours, payload FROM drift_days "
    f"WHERE stream_id = {_OF} ORDER BY 1, 2",
    "drift_cells": f"""SELECT horizon_us, window_end_us, window_start_us, statistics, "limit", payload FROM drift_cells
        WHERE stream_id = {_OF} ORDER BY 1, 2""",
    "feature_summaries": f"""SELECT kind, horizon_us, from_us, until_us, sampled, payload FROM feature_summaries
        WHERE model_id IN (SELECT id FROM models WHERE stream_id = {_OF}) ORDER BY 1, 2, 3""",
    "drift_marks": f"SELECT until_us, rebased_from_us, state FROM drift_marks WHERE stream_id = {_OF}",
    "positions": f"""SELECT so.partition, p.next_offset, p.watermark_us, p.last_event_us FROM positions p
        JOIN sources so ON so.id = p.source_id WHERE p.stream_id = {_OF} AND p.active ORDER BY 1""",
    "window_parts": f"""SELECT window_start_us, sum(events), sum(late), sum(dead), sum(filtered) FROM window_parts
        WHERE stream_id = {_OF} GROUP BY 1 ORDER BY 1""",
}
_JSON = {"details", "features", "state", "base"}


def read_rows(db: Database, stream_id: int) -> dict[str, Rows]:
    """Return the rows of each table that two runs over the same log must have in common."""
    found = {}
    with db.read() as connection:
        for name, query in _QUERIES.items():
            result = connection.execute(sa.text(query), {"stream_id": stream_id})
            names = list(result.keys())
            found[name] = [tuple(_value(names[i], value) for i, value in enumerate(row)) for row in result]
    return found


def _value(name: str, value: Any) -> object:
    if name == "energy":
        return float(np.float32(value))  # one database returns a float4 as its shortest decimal, the other widened
    if name in _JSON and isinstance(value, str) and value[:1] in "[{":
        return json.dumps(json.loads(value), sort_keys=True)
    return bytes(value) if isinstance(value, memoryview) else value
