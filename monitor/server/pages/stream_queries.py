"""SQL over the public views that returns the numbers of a panel of the stream page."""

from collections.abc import Mapping

from config.time_format import format_short_time
from monitor.server.pages.stream_view import Span, choose_resolution


def panel_sql(stream: str, span: Span, window_us: int) -> Mapping[str, str]:
    """Return the query of each panel, by its name.

    Args:
        stream: Name of the stream.
        span: The time.
        window_us: Length of a window.
    """
    name = quote_text(stream)
    first, last = (quote_text(format_short_time(each)) for each in (span.from_us, span.until_us))
    bounds = f"{{column}} >= {span.from_us} AND {{column}} < {span.until_us}  -- {first} to {last}"
    resolution_us = choose_resolution(span, window_us)
    if resolution_us is None:
        source, start, expected = "window_history", "window_start", "expected_outliers"
        where = f"w.stream = {name}\n   AND {bounds.format(column='w.window_start_us')}"
        start_us = "w.window_start_us"
    else:
        source, start, expected = "rollup_history", "rollup_start", "expected_outliers"
        where = (
            f"w.stream = {name} AND w.resolution_s = {resolution_us // 1_000_000}\n"
            f"   AND {bounds.format(column='w.start_us')}"
        )
        start_us = "w.end_us - 1"
    extra = "w.fires_at" if resolution_us is None else "w.most_outliers, w.fired"
    return {
        "energy": f"""SELECT w.{start}, w.energy_p50, w.energy_p99, w.energy_max,
       t.threshold, t.lower, t.upper, t.method
  FROM {source} w LEFT JOIN threshold_history t ON t.id = (
       SELECT x.id FROM threshold_history x WHERE x.stream = w.stream AND x.valid_from_us <= {start_us}
        ORDER BY x.valid_from_us DESC, x.id DESC LIMIT 1)
 WHERE {where}
 ORDER BY w.{start}""",
        "outliers": f"""SELECT w.{start}, w.outliers, w.{expected}, {extra}, w.events, w.p_value
  FROM {source} w
 WHERE {where}
 ORDER BY w.{start}""",
        "records": f"""SELECT w.{start}, w.events, w.late, w.dead, w.filtered
  FROM {source} w
 WHERE {where}
 ORDER BY w.{start}""",
        "drift": f"""-- The strongest statistics; the CSV has all of them.
SELECT window_start, horizon, statistic, feature, z, effect, before, after, "limit", drifted
  FROM drift_history
 WHERE stream = {name}
   AND {bounds.format(column="window_end_us")}
 ORDER BY window_start, horizon, abs(z) DESC""",
        "features": f"""-- Outliers with their features; the histograms come from the stored samples of all events.
SELECT event_time, key, energy, features FROM outlier_history
 WHERE stream = {name}
   AND {bounds.format(column="event_time_us")}
 ORDER BY energy DESC""",
    }


def models_sql(stream: str, span: Span) -> Mapping[str, str]:
    """Return the query of each panel of the page of models, by its name."""
    name = quote_text(stream)
    models = f"""SELECT version, kind, state, activated_at, held_out_energy, shadow_threshold, shared_events,
       flagged_by_both, flagged_by_active, flagged_by_shadow, flagged_by_none, gate, summary
  FROM model_history
 WHERE stream = {name} ORDER BY version DESC"""
    return {
        "side": models,
        "gate": models,
        "thresholds": f"""SELECT valid_from, threshold, lower, upper, method, n, percentile, model_version
  FROM threshold_history
 WHERE stream = {name}
   AND valid_from_us >= {span.from_us} AND valid_from_us < {span.until_us}
 ORDER BY valid_from""",
        "ledger": """SELECT stream, at, promised_per_week, true_alarms, false_alarms, without_verdict,
       precision, precision_lower, precision_upper, windows_learned, dispersion, state
  FROM calibration_history c
 WHERE at_us = (SELECT max(x.at_us) FROM calibration_history x WHERE x.stream = c.stream)""",
    }


def quote_text(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
