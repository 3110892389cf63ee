"""The acceptance of an incident as normal by a user. Pure functions."""

import numpy as np
from numpy.typing import NDArray

from config.errors import ConfigError
from config.stream_rules import StreamRules
from monitor.incidents.lifecycle import Interval, Kind
from monitor.incidents.rows import withdraw_incident
from monitor.statistics.sketch import EnergySketch
from monitor.thresholds.percentile import MIN_LOOK_BACK_TAIL, exceedance
from storage.control.acceptance import Acceptance, AcceptanceFacts, AcceptedReference

ACCEPTABLE_KINDS = (Kind.SPIKE, Kind.SLOW_RISE, Kind.DRIFT, Kind.CALIBRATION)
"""Kinds that can become normal because they were found in the events.

Incidents of silence, stopped streams, stalled partitions, late events, gaps and dead letters cannot be accepted; they
resolve.
"""

MIN_REFERENCE = 20_000
_REFERENCE_TAIL = 50


def plan_acceptance(
    facts: AcceptanceFacts, rules: StreamRules, reference: AcceptedReference | None, *, now_us: int
) -> Acceptance:
    """Return the records to write when a user accepts an incident.

    Args:
        facts: The incident and the last judged window of the stream.
        rules: The rules of the stream. After a look-back, threshold and count model have learned the accepted windows.
        reference: The new reference of the threshold. Only for incidents of kind calibration.
        now_us: Wall-clock time. It only decides which notifications are too old.

    Raises:
        ConfigError: The incident cannot be accepted, or not yet.
    """
    incident, judged = facts.incident, facts.last_judged_window
    if Kind(incident.kind) not in ACCEPTABLE_KINDS:
        kinds = ", ".join(kind.value for kind in ACCEPTABLE_KINDS)
        raise ConfigError(
            f"incident {incident.id} is of kind {incident.kind} and cannot be accepted: it resolves without it; "
            f"incidents of kind {kinds} can be accepted"
        )
    if judged is None or (incident.kind == Kind.SPIKE and judged[1] < incident.opened_at_us):
        raise ConfigError(
            f"the window that opened incident {incident.id} is still open: try again when the window has ended"
        )
    at = Interval(start_us=judged[0], end_us=judged[1])
    row = withdraw_incident(
        incident,
        "accepted: a person says that this is normal now",
        at,
        rules,
        now_us=now_us,
        details={"reason": "accepted"},
    )
    windowed = Kind(incident.kind) in (Kind.SPIKE, Kind.SLOW_RISE)
    return Acceptance(
        incident_row=row,
        at_us=at.end_us,
        adopt_since_us=incident.window_start_us if windowed else None,
        accepted_rate_until_us=at.end_us + rules.look_back_us,
        reference=reference,
        # The changed distribution is the new baseline from its first window on.
        rebase_from_us=incident.window_start_us if incident.kind == Kind.DRIFT else None,
    )


def build_accepted_reference(sketch: EnergySketch, percentile: float) -> NDArray[np.float32]:
    """Return the energies of the look-back as a reference, ascending, with as many values as the percentile needs.

    Raises:
        ConfigError: The look-back has too few events for a reference.
    """
    a = exceedance(percentile)
    if sketch.n * a < MIN_LOOK_BACK_TAIL:
        needed = int(np.ceil(MIN_LOOK_BACK_TAIL / a))
        raise ConfigError(
            f"the look-back has {sketch.n:,} events, too few for a new reference: "
            f"the {percentile:g} percentile needs {needed:,}; try again when it has as many"
        )
    n_reference = min(sketch.n, max(MIN_REFERENCE, int(np.ceil(_REFERENCE_TAIL / a))))
    return np.sort(sketch.quantiles(np.arange(1, n_reference + 1) / (n_reference + 1))).astype(np.float32)


def describe_acceptance(kind: str, windows: int, reference: AcceptedReference | None) -> str:
    """Return a sentence that describes the effect of an acceptance."""
    if reference is not None:
        return (
            f"the new reference consists of {len(reference.energies):,} energies from the look-back; "
            "the next threshold is their percentile"
        )
    if kind == Kind.DRIFT:
        return "the drift baseline starts again at the windows where the drift was first seen"
    counted = "1 window counts" if windows == 1 else f"{windows:,} windows count"
    return f"{counted} as normal from the next threshold on; their rate of outliers is normal from now on"
