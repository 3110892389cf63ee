"""The result of screening as text: how many training events were left out, why, and the effect on the threshold."""

from monitor.models.fitting import FittedModel
from monitor.thresholds.choose import Method, estimate_first_threshold


def describe_screening(fitted: FittedModel, percentile: float, method: Method) -> str | None:
    """Return the numbers of excluded and recurring events and both thresholds; None if nothing was proposed.

    Args:
        fitted: The fitted model.
        percentile: The percentile of the threshold.
        method: The method of the threshold.
    """
    summary = fitted.new_model.summary
    left_out, recurring = int(summary.get("left_out", 0)), int(summary.get("recurring", 0))
    if not left_out and not recurring:
        return None
    total = int(summary["events"])
    reason = "the share in model.contamination" if summary["contamination"] else "far outside of all others"
    parts = [f"{left_out:,} of {total:,} events left out ({reason})" if left_out else "no event left out"]
    if summary.get("in_reference_only"):
        parts.append(f"{summary['in_reference_only']:,} of these are in repeated episodes and count for the threshold")
    if recurring:
        parts.append(f"{recurring:,} unusual events recur and are kept")
    if len(fitted.all_energies) > len(fitted.reference):
        with_all, chosen = (
            estimate_first_threshold(energies, percentile, method=method).value
            for energies in (fitted.all_energies, fitted.reference)
        )
        parts.append(f"threshold {chosen:.4g}, with all events {with_all:.4g}")
    return "; ".join(parts)
