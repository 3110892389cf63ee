"""The finding that threshold and count model are no longer reliable. Pure functions.

Each tick checks two conditions:

* The percentile of the look-back and the mapped reference disagree for a quarter of the look-back and at three ticks or
  more. Outliers and a heavier clean tail have the same effect, so a user decides between them (`outrider accept`, or a
  new fit).
* The learned rate of clean windows differs from the nominal exceedance of the percentile by more than a factor of 3.
  The learned rate follows a slow increase of outliers; the nominal exceedance does not.
"""

from typing import Any

from config.budget import LEARNED_WINDOWS
from config.stream_rules import StreamRules
from config.time_format import format_utc
from monitor.incidents.lifecycle import Finding, Kind, Severity
from monitor.statistics.counts import count_model_to_json, is_rate_suspect, rate_bound
from monitor.thresholds.choose import disagrees_with_reference
from monitor.thresholds.percentile import exceedance
from monitor.thresholds.tick import load_count_model
from storage.control.thresholds import ThresholdRow

MIN_DISAGREEMENT_SHARE = 0.25
"""Share of the look-back for which percentile and reference must disagree at every tick before an incident opens."""

MIN_DISAGREEMENT_TICKS = 3
"""Number of ticks in a row at which they must disagree: with rare ticks, a quarter of the look-back may be one."""


def find_calibration_problem(
    row: ThresholdRow, rules: StreamRules, tick_us: int, *, model_version: int
) -> Finding | None:
    """Return the finding of a tick, or None while threshold and count model are reliable.

    Args:
        row: The threshold of the tick.
        rules: The rules of the stream.
        tick_us: Event time of the tick.
        model_version: Version of the row's model.
    """
    since_us = row.details.get("disagrees_since_us")
    estimate_details = row.details["limit"]
    if (
        since_us is not None
        and tick_us - since_us >= MIN_DISAGREEMENT_SHARE * rules.look_back_us
        # Rows of former versions do not count the ticks.
        and row.details.get("disagreements", MIN_DISAGREEMENT_TICKS) >= MIN_DISAGREEMENT_TICKS
        and disagrees_with_reference(row.method, estimate_details)
    ):
        plain, share = estimate_details.get("t_plain"), estimate_details.get("eps")
        summary = (
            f"since {format_utc(since_us)} the {row.percentile:g} percentile of the energies"
            + (f" ({plain:.5g})" if isinstance(plain, float) else "")
            + f" is above the range that the reference energies allow (the threshold is {row.threshold:.5g}): "
            + (f"about {share:.2%} outliers" if isinstance(share, float) else "outliers")
            + ", or a heavier tail; `outrider accept` accepts it as normal"
        )
        return _build_finding(
            "disagreement", summary, row, rules.config_hash, model_version, {"since": format_utc(since_us)}
        )
    count_model, a = load_count_model(row.details), exceedance(rules.percentile)
    if (
        count_model.windows >= LEARNED_WINDOWS
        and is_rate_suspect(count_model, a)
        and not _is_explained_by_ties(row, count_model.rate, a)
    ):
        low, high = rate_bound(count_model, 0.05), rate_bound(count_model, 0.95)
        summary = (
            f"{count_model.rate:.3%} of the events of clean windows are above the threshold ({low:.3%} to {high:.3%}), "
            f"the {row.percentile:g} percentile implies {a:.3%}: the threshold no longer fits the stream"
        )
        return _build_finding(
            "rate", summary, row, rules.config_hash, model_version, {"rate_lower": low, "rate_upper": high}
        )
    return None


def _is_explained_by_ties(row: ThresholdRow, rate: float, a: float) -> bool:
    """Return True if ties explain the low rate: many events share the value of the percentile, and few are above it."""
    return row.method == "plain" and rate < a


def _build_finding(
    reason: str,
    summary: str,
    row: ThresholdRow,
    config_hash: str,
    model_version: int,
    extra_details: dict[str, Any],
) -> Finding:
    estimate_details = row.details["limit"]
    details = {
        "reason": reason,
        "t_plain": estimate_details.get("t_plain"),
        "t_anchored": estimate_details.get("t_anchored"),
        "t_high": estimate_details.get("t_high"),
        "eps": estimate_details.get("eps"),
        "n": row.n,
        "reference_n": estimate_details.get("reference_n"),
        "nominal_rate": exceedance(row.percentile),
        **extra_details,
        "limit": {
            "value": row.threshold,
            "lower": row.lower,
            "upper": row.upper,
            "percentile": row.percentile,
            "method": row.method,
        },
        "law": count_model_to_json(load_count_model(row.details)),
        "model_version": model_version,
        "config_hash": config_hash,
    }
    return Finding(kind=Kind.CALIBRATION, severity=Severity.WARNING, summary=summary, details=details)
