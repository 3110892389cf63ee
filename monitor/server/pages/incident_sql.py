"""The queries behind the panels of the incident page, as a person would write them over the views. Pure."""

from config.time_format import format_time
from storage.queries.incident_report import IncidentReport


def incident_sql(report: IncidentReport, start_us: int, end_us: int) -> dict[str, str]:
    """Return the query of each panel by its name.

    Args:
        report: The incident.
        start_us: Begin of its windows.
        end_us: End of its windows.
    """
    times = f"'{format_time(start_us)}' AND event_time < '{format_time(end_us)}'"
    outliers = (
        'SELECT event_time, event_id, key, energy, threshold, features, topic, "partition", source_offset\n'
        f"FROM outlier_history\nWHERE stream = '{report.stream}' AND event_time >= {times}\nORDER BY energy DESC LIMIT"
    )
    details = f"SELECT details FROM incident_history WHERE id = {report.id}"
    return {
        "why": f"{outliers} 2000\n-- the contributions of these events: GaussianMixture.explain, mean over the events",
        "events": f"{outliers} 8",
        "whose": details,
        "drift": 'SELECT horizon, window_start, statistic, feature, before, after, effect, z, "limit"\n'
        f"FROM drift_history\nWHERE stream = '{report.stream}' AND drifted\nORDER BY window_start DESC",
        "rows": details,
        "reasons": "SELECT reason, count(*), min(recorded_at), max(recorded_at)\nFROM dead_letter_history\n"
        f"WHERE stream = '{report.stream}' GROUP BY reason ORDER BY count(*) DESC",
        "similar": "SELECT id, opened_at, severity, verdict, summary FROM incident_history\n"
        f"WHERE stream = '{report.stream}' AND kind = '{report.kind}' AND id <> {report.id} ORDER BY opened_at DESC",
        "timeline": "SELECT at, verb, who, note FROM verdict_history\n"
        f"WHERE incident_id = {report.id} ORDER BY at;\n"
        "SELECT transition, channel, state, attempts, created_at, delivered_at, last_error\n"
        f"FROM notification_history WHERE incident_id = {report.id} ORDER BY created_at",
        "tests": details,
    }
