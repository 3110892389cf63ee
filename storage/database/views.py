"""The fifteen SQL views for users, with the same names and columns on both databases.

The documented columns come first and in their documented order; more columns may be added after them. A `*_us` column
holds the stored number: filter on it where an index or a range scan matters. The statements contain no user input.
"""

from __future__ import annotations

from typing import Literal

from sqlalchemy.engine import Connection

from storage.database.dialects import CLOCK_SQL_US
from storage.database.tables import (
    CONTROL_LEASE_TTL_S,
    FOREVER_US,
    HEALTH_CLOCK_TOLERANCE_S,
    HEALTH_REPORT_TTL_S,
)

Dialect = Literal["sqlite", "postgresql"]
JsonType = Literal["json", "jsonb"]

POSTGRESQL_TIME = (
    "((timestamp '2100-01-01' + ({column} - 4102444800000000) * interval '1 microsecond') AT TIME ZONE 'UTC')"
)
"""The timestamptz of a number of microseconds since 1970. `scores` has an index on this expression of its event time.

It contains immutable functions only, as an index requires. PostgreSQL multiplies an interval in double precision: the
difference from the year 2100 is exact for every time from 1970 to 2261.
"""

SHADOW_AGREEMENT = """SELECT sw.model_id, count(*) AS windows, CAST(sum(w.events) AS BIGINT) AS events,
       CAST(sum(w.outliers) AS BIGINT) AS active, CAST(sum(sw.outliers) AS BIGINT) AS shadow,
       CAST(sum(sw.outliers_of_both) AS BIGINT) AS both
  FROM shadow_windows sw JOIN windows w ON w.stream_id = sw.stream_id AND w.window_start_us = sw.window_start_us
 WHERE sw.outliers_of_both IS NOT NULL AND sw.events = w.events GROUP BY sw.model_id"""
"""The outliers of each shadow model and of the active one, over the windows that both scored, by model."""

NO_LEASE = "no process that reports holds the lease on the control plane, so that no window is judged"
"""Reason of the state `unknown` of a stream whose events are stored and not judged."""

NO_REPORT = "a process holds the lease on the control plane and reports nothing"
"""Reason of the state `unknown` of a stream whose processes do not report."""

UNCLAIMED = "no process that reports reads it"
"""Reason of the state `unclaimed` of a partition."""

_SOURCE_COLUMNS = "st.name AS stream, so.topic, so.partition"


def _time_column(column: str, name: str, dialect: Dialect) -> str:
    if dialect == "sqlite":
        seconds = f"strftime('%Y-%m-%dT%H:%M:%S', {column} / 1000000, 'unixepoch')"
        return f"{seconds} || printf('.%06dZ', {column} % 1000000) AS {name}"
    return f"{POSTGRESQL_TIME.format(column=column)} AS {name}"


def _json_column(column: str, name: str, dialect: Dialect, json_type: JsonType) -> str:
    if dialect == "sqlite":
        return f"{column} AS {name}"
    if json_type == "json":
        return f"{column}::json AS {name}"
    # jsonb has no NUL: one in a text would otherwise fail every query that reads the row.
    return f"replace({column}, '\\u0000', '\\ufffd')::jsonb AS {name}"


def _score_columns(table: str, dialect: Dialect) -> str:
    return f"""{_SOURCE_COLUMNS}, {table}.source_offset, so.incarnation,
       {_time_column(f"{table}.event_time_us", "event_time", dialect)}, {table}.event_time_us,
       {_time_column(f"{table}.stored_at_us", "stored_at", dialect)},
       {table}.key, {table}.event_id, {table}.energy, t.threshold, {table}.energy > t.threshold AS is_outlier,
       m.version AS model_version"""


def _score_joins(table: str) -> str:
    return f"""JOIN sources so ON so.id = {table}.source_id
  JOIN streams st ON st.id = so.stream_id
  JOIN thresholds t ON t.id = {table}.threshold_id
  JOIN models m ON m.id = t.model_id"""


def view_queries(dialect: Dialect, json_type: JsonType = "jsonb") -> dict[str, str]:
    """Return the SELECT statement of each view, by the view's name.

    `json_type` is the type of the JSON columns on PostgreSQL; on SQLite they are text.
    """

    def time(column: str, name: str) -> str:
        return _time_column(column, name, dialect)

    def json(column: str, name: str) -> str:
        return _json_column(column, name, dialect, json_type)

    def number(column: str, key: str) -> str:
        if dialect == "sqlite":
            return f"json_extract({column}, '$.{key}') AS {key}"
        return f"({column}::json ->> '{key}')::double precision AS {key}"

    # On PostgreSQL this is the partition key: a query that bounds it reads only the matching partitions.
    stored_day = "s.stored_day" if dialect == "postgresql" else "s.stored_at_us / 86400000000"
    join_source = "JOIN sources so ON so.id = x.source_id JOIN streams st ON st.id = so.stream_id"
    join_stream = "JOIN streams st ON st.id = x.stream_id"
    return {
        "score_history": f"""SELECT {_score_columns("s", dialect)},
       s.stored_at_us, s.threshold_id, s.source_id, {stored_day} AS stored_day
  FROM scores s {_score_joins("s")}""",
        "outlier_history": f"""SELECT {_score_columns("o", dialect)},
       {json("o.features", "features")}, o.stored_at_us, o.threshold_id, o.source_id,
       h.key IS NOT NULL AS habitual, o.trace_id
  FROM outliers o {_score_joins("o")}
  LEFT JOIN habitual_keys h ON h.stream_id = so.stream_id AND h.key = o.key
   AND o.event_time_us >= h.since_us AND o.event_time_us < h.until_us""",
        "window_history": f"""SELECT st.name AS stream, {time("x.window_start_us", "window_start")},
       {time("x.window_end_us", "window_end")}, x.events, x.outliers, x.expected AS expected_outliers, x.late,
       x.p_value, x.energy_p50, x.energy_p99, x.energy_max, m.version AS model_version,
       x.window_start_us, x.window_end_us, x.dead, t.threshold, {json("x.details", "details")},
       {time("x.judged_at_us", "judged_at")}, x.filtered, x.fires_at
  FROM windows x {join_stream}
  LEFT JOIN thresholds t ON t.id = x.threshold_id LEFT JOIN models m ON m.id = t.model_id""",
        "threshold_history": f"""SELECT st.name AS stream, {time("x.computed_at_us", "computed_at")},
       {time("x.valid_from_us", "valid_from")}, x.percentile, x.threshold, x.lower, x.upper, x.n, x.method,
       m.version AS model_version, x.computed_at_us, x.valid_from_us, {json("x.details", "details")},
       {time("x.recorded_at_us", "recorded_at")}, x.id
  FROM thresholds x {join_stream} JOIN models m ON m.id = x.model_id""",
        "incident_history": f"""SELECT x.id, st.name AS stream, x.kind, x.severity, x.status,
       {time("x.window_start_us", "window_start")}, {time("x.opened_at_us", "opened_at")},
       {time("x.resolved_at_us", "resolved_at")}, x.summary, {json("x.details", "details")},
       x.window_start_us, x.opened_at_us, x.resolved_at_us, x.windows_fired, x.clean_windows,
       {time("x.acknowledged_at_us", "acknowledged_at")}, x.acknowledged_by, x.verdict,
       {json("x.contributions", "contributions")}
  FROM incidents x {join_stream}""",
        "rollup_history": f"""SELECT st.name AS stream, x.resolution_us / 1000000 AS resolution_s,
       {time("x.start_us", "rollup_start")}, {time("x.end_us", "rollup_end")}, x.windows, x.fired, x.events, x.outliers,
       x.expected AS expected_outliers, x.late, x.dead, x.filtered, x.most_outliers, x.fires_at, x.p_value,
       x.energy_p50, x.energy_p99, x.energy_max, x.model_version, x.start_us, x.end_us
  FROM window_rollups x {join_stream}""",
        "model_history": f"""SELECT st.name AS stream, x.version, x.kind, x.state,
       {time("x.created_at_us", "created_at")},
       {time("x.valid_from_us", "activated_at")}, {number("x.summary", "held_out_energy")},
       {time("s.since_us", "shadow_since")}, s.threshold AS shadow_threshold, {time("s.due_us", "shadow_due")},
       a.windows AS shared_windows, a.events AS shared_events, a.both AS flagged_by_both,
       a.active - a.both AS flagged_by_active, a.shadow - a.both AS flagged_by_shadow,
       a.events - a.active - a.shadow + a.both AS flagged_by_none,
       {json("s.verdict", "gate")}, {json("x.summary", "summary")}, x.valid_from_us AS activated_at_us,
       s.since_us AS shadow_since_us, x.id
  FROM models x {join_stream} LEFT JOIN shadows s ON s.model_id = x.id
  LEFT JOIN ({SHADOW_AGREEMENT}) a ON a.model_id = x.id""",
        "verdict_history": f"""SELECT x.incident_id, st.name AS stream, i.kind, {time("x.at_us", "at")}, x.verb, x.who,
       x.note, {json("x.before", "before")}, {json("x.after", "after")}, {json("x.effects", "effects")},
       {time("x.tick_us", "tick")}, x.at_us, x.id
  FROM incident_verbs x {join_stream} JOIN incidents i ON i.id = x.incident_id""",
        "mute_history": f"""SELECT x.id, x.stream, x.kind, x.key, {time("x.starts_at_us", "starts_at")},
       {time("x.ends_at_us", "ends_at")}, x.who, x.note, x.held_back, x.incident_id, x.weekly,
       {time("x.created_at_us", "created_at")}, x.starts_at_us, x.ends_at_us
  FROM mutes x""",
        "notification_history": f"""SELECT x.id, x.incident_id, tr.transition, x.channel, x.state, x.attempts,
       x.last_error, {time("x.created_at_us", "created_at")}, {time("x.delivered_at_us", "delivered_at")},
       st.name AS stream, x.created_at_us, {time("x.next_attempt_at_us", "next_attempt_at")}, tr.summary,
       x.reason
  FROM notifications x JOIN transitions tr ON tr.id = x.transition_id
  JOIN streams st ON st.id = tr.stream_id""",
        "dead_letter_history": f"""SELECT {_SOURCE_COLUMNS}, x.source_offset, x.reason, x.detail, x.payload,
       {time("x.recorded_at_us", "recorded_at")}, x.end_offset, x.count, so.incarnation,
       x.recorded_at_us, x.id
  FROM dead_letters x {join_source}""",
        "drift_history": f"""SELECT st.name AS stream, x.horizon, {time("x.window_start_us", "window_start")},
       {time("x.window_end_us", "window_end")}, x.statistic, NULLIF(x.feature, '') AS feature, x.before,
       x.after, x.effect, x.z, x."limit", x.drifted, x.window_start_us, x.window_end_us, x.id
  FROM drift_verdicts x {join_stream}""",
        "calibration_history": f"""SELECT st.name AS stream, {time("x.at_us", "at")}, x.promised_per_week,
       x.realised_per_week, x.windows_learned, x.dispersion, x.exceedance, x.state, x.at_us,
       x.true_alarms, x.false_alarms, x.without_verdict, x.precision, x.precision_lower, x.precision_upper
  FROM calibrations x {join_stream}""",
        "gap_history": f"""SELECT {_SOURCE_COLUMNS}, x.from_offset, x.to_offset, x.reason,
       {time("x.recorded_at_us", "recorded_at")}, so.incarnation, x.recorded_at_us, x.event_time_us,
       x.incident_id, x.id
  FROM gaps x {join_source}""",
        "health": f"""WITH {_health_states(dialect)}
SELECT x.stream, x.component, x.state, {time("x.since_us", "since")}, x.reason, x.since_us
  FROM (SELECT stream, 'stream' AS component, state, since_us, reason FROM overall
  UNION ALL SELECT o.stream, r.component, r.state, r.since_us, r.reason
    FROM reports r JOIN overall o ON o.stream_id = r.stream_id WHERE r.component <> 'stream' AND r.place = 1
  UNION ALL SELECT o.stream, 'replica ' || r.replica, r.state, r.since_us, r.reason
    FROM reports r JOIN overall o ON o.stream_id = r.stream_id
   WHERE r.component = 'stream' AND r.state NOT IN ('running', 'warming_up', 'ended') AND r.state <> o.state
  UNION ALL SELECT o.stream, 'partition ' || so.topic || '[' || so.partition || ']', 'unclaimed', NULL, '{UNCLAIMED}'
    FROM positions p JOIN sources so ON so.id = p.source_id JOIN overall o ON o.stream_id = p.stream_id
   WHERE p.active AND p.idle_until_us <> {FOREVER_US}
     AND EXISTS (SELECT 1 FROM reports r
                  WHERE r.stream_id = p.stream_id AND r.component = 'stream' AND r.state = 'running')
     AND NOT EXISTS (SELECT 1 FROM reports r
                      WHERE r.stream_id = p.stream_id AND r.component = 'stream'
                        AND substr(p.owner, 1, length(r.replica) + 1) = r.replica || ':')
  UNION ALL SELECT o.stream, 'incident ' || i.id, i.kind, i.opened_at_us, i.summary
    FROM incidents i JOIN overall o ON o.stream_id = i.stream_id
   WHERE i.status = 'open' AND i.kind <> o.state
     AND i.kind IN ('stopped', 'stalled', 'late', 'silence', 'gap', 'dead_letters')
  UNION ALL SELECT NULL, 'job ' || name, 'failing', failed_at_us, last_error
    FROM jobs WHERE last_error IS NOT NULL) x""",
    }


def _health_states(dialect: Dialect) -> str:
    """Return the common table expressions of the view `health`: fresh reports, and the state of each stream.

    A stream has the state of the replica that does best: a replica that cannot run it is a row of its own. It runs only
    if a process that reports holds the lease on its control plane. Reports and leases from before the clock was set
    back, which lie in the future, prove nothing (`monitor.health.stream_health` decides in the same way).
    """
    return f"""clock AS (SELECT {CLOCK_SQL_US[dialect]} AS now_us),
  reports AS (SELECT h.stream_id, h.replica, h.component, h.state, h.since_us, h.reason,
      ROW_NUMBER() OVER (PARTITION BY h.stream_id, h.component ORDER BY h.since_us, h.replica) AS place
    FROM health_reports h CROSS JOIN clock
   WHERE h.reported_at_us > clock.now_us - {HEALTH_REPORT_TTL_S * 1_000_000}
     AND h.reported_at_us <= clock.now_us + {HEALTH_CLOCK_TOLERANCE_S * 1_000_000}),
  held AS (SELECT st.id AS stream_id, l.holder
    FROM streams st JOIN leases l ON l.name = 'control:' || st.name CROSS JOIN clock
   WHERE l.expires_at_us > clock.now_us
     AND l.expires_at_us <= clock.now_us + {2 * CONTROL_LEASE_TTL_S * 1_000_000}),
  judged AS (SELECT h.stream_id FROM held h JOIN reports r ON r.stream_id = h.stream_id
   WHERE r.component = 'stream' AND substr(h.holder, 1, length(r.replica) + 1) = r.replica || ':'),
  candidates AS (
    SELECT stream_id, 0 AS place, 'ended' AS state, MAX(committed_at_us) AS since_us, NULL AS reason
      FROM positions WHERE active GROUP BY stream_id HAVING MIN(idle_until_us) = {FOREVER_US}
    UNION ALL SELECT i.stream_id, CASE i.kind WHEN 'stalled' THEN 1 ELSE 2 END, i.kind, i.opened_at_us, i.summary
      FROM incidents i JOIN reports r ON r.stream_id = i.stream_id
     WHERE i.status = 'open' AND i.kind IN ('stalled', 'late') AND r.component = 'stream' AND r.state = 'running'
    UNION ALL SELECT stream_id, CASE state WHEN 'running' THEN 3 WHEN 'warming_up' THEN 4 ELSE 5 END, state, since_us,
        reason
      FROM reports WHERE component = 'stream'
       AND (state <> 'running' OR stream_id IN (SELECT stream_id FROM judged))
    UNION ALL SELECT stream_id, 3, 'unknown', NULL, '{NO_LEASE}'
      FROM reports WHERE component = 'stream' AND state = 'running' AND stream_id NOT IN (SELECT stream_id FROM judged)
    UNION ALL SELECT stream_id, 6, 'unknown', NULL, '{NO_REPORT}' FROM held
    UNION ALL SELECT st.id, 9, 'not_running', MAX(p.committed_at_us), NULL
      FROM streams st LEFT JOIN positions p ON p.stream_id = st.id GROUP BY st.id),
  overall AS (SELECT st.id AS stream_id, st.name AS stream, c.state, c.since_us, c.reason
    FROM (SELECT stream_id, state, since_us, reason,
        ROW_NUMBER() OVER (PARTITION BY stream_id ORDER BY place, since_us) AS choice FROM candidates) c
    JOIN streams st ON st.id = c.stream_id WHERE c.choice = 1)"""


def drop_views(connection: Connection, dialect: Dialect) -> None:
    """Drop the views on SQLite, which cannot alter a table that a view refers to; do nothing on PostgreSQL."""
    if dialect == "sqlite":
        for name in view_queries(dialect):
            connection.exec_driver_sql(f"DROP VIEW IF EXISTS {name}")


def create_views(connection: Connection, dialect: Dialect) -> None:
    """Create the views, or replace them on PostgreSQL, where views of the user may depend on them.

    A view with columns of type json, made by a version before those of type jsonb, keeps this type: PostgreSQL replaces
    no view by one with other types, and views of the user would be lost with it.
    """
    queries = view_queries(dialect)
    if dialect == "postgresql":
        earlier = view_queries(dialect, "json")
        queries |= {name: earlier[name] for name in _find_json_views(connection) & queries.keys()}
    verb = "CREATE VIEW" if dialect == "sqlite" else "CREATE OR REPLACE VIEW"
    for name, select in queries.items():
        # psycopg would parse a percent sign as a parameter.
        statement = f"{verb} {name} AS {select}"
        connection.exec_driver_sql(statement if dialect == "sqlite" else statement.replace("%", "%%"))


def _find_json_views(connection: Connection) -> set[str]:
    """Return the views in the schema of the connection that have columns of type json."""
    query = (
        "SELECT DISTINCT table_name FROM information_schema.columns "
        "WHERE table_schema = current_schema() AND data_type = 'json'"
    )
    return {str(name) for (name,) in connection.exec_driver_sql(query)}
