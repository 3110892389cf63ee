"""What it means that a person takes an incident for normal. Pure."""

import numpy as np
from numpy.typing import NDArray

from config.errors import ConfigError
from monitor.incidents.lifecycle import Interval, Kind
from monitor.incidents.rows import IncidentPolicy, withdraw_incident
from monitor.statistics.sketch import EnergySketch
from monitor.thresholds.percentile import MIN_LOOK_BACK_TAIL, exceedance
from storage.control.acceptance import Acceptance, AcceptanceFacts, AcceptedReference

ACCEPTABLE_KINDS = (Kind.SPIKE, Kind.SLOW_RISE, Kind.DRIFT, Kind.CALIBRATION)
"""What can become normal: what was found in the events. Silence, gaps and bad records end by themselves."""

MIN_REFERENCE = 20_000
_REFERENCE_TAIL = 50


def plan_acceptance(
    facts: AcceptanceFacts, rule: IncidentPolicy, reference: AcceptedReference | None, *, look_back_us: int, now_us: int
) -> Acceptance:
    """Return what accepting an incident writes.

    Args:
        facts: The incident, and how far the stream is judged.
        rule: How incidents live, and who is told.
        reference: What the guard of the limit goes by from now on; only for incidents of kind calibration.
        look_back_us: After which the limit and the law of counts have learned what was accepted.
        now_us: The wall clock, only to tell whom a notification is too old for.

    Raises:
        ConfigError: The incident cannot be accepted, or not yet.
    """
    incident, judged = facts.incident, facts.last_judged_window
    if Kind(incident.kind) not in ACCEPTABLE_KINDS:
        named = ", ".join(kind.value for kind in ACCEPTABLE_KINDS)
        raise ConfigError(
            f"incident {incident.id} is of kind {incident.kind}, which ends by itself: only {named} can be accepted"
        )
    if judged is None or (incident.kind == Kind.SPIKE and judged[1] < incident.opened_at_us):
        raise ConfigError(
            f"the window that opened incident {incident.id} is still open: accept it when the window has ended"
        )
    at = Interval(start_us=judged[0], end_us=judged[1])
    row = withdraw_incident(
        incident,
        "accepted: a person says that this is normal now",
        at,
        rule,
        now_us=now_us,
        details={"reason": "accepted"},
    )
    windowed = Kind(incident.kind) in (Kind.SPIKE, Kind.SLOW_RISE)
    return Acceptance(
        incident_row=row,
        at_us=at.end_us,
        adopt_since_us=incident.window_start_us if windowed else None,
        accepted_rate_until_us=at.end_us + look_back_us,
        reference=reference,
        # What has moved is the new normal from where it was first seen.
        rebase_from_us=incident.window_start_us if incident.kind == Kind.DRIFT else None,
    )


def build_accepted_reference(sketch: EnergySketch, percentile: float) -> NDArray[np.float32]:
    """Return the look-back's energies as a reference of the limit, ascending: as many as the percentile needs.

    Raises:
        ConfigError: The look-back has too few events to stand for what is normal.
    """
    a = exceedance(percentile)
    if sketch.n * a < MIN_LOOK_BACK_TAIL:
        needed = int(np.ceil(MIN_LOOK_BACK_TAIL / a))
        raise ConfigError(
            f"the look-back has {sketch.n:,} events, too few to be what is normal: "
            f"the {percentile:g} percentile needs {needed:,}; try again when they have come"
        )
    m = min(sketch.n, max(MIN_REFERENCE, int(np.ceil(_REFERENCE_TAIL / a))))
    return np.sort(sketch.quantiles(np.arange(1, m + 1) / (m + 1))).astype(np.float32)


def describe_acceptance(kind: str, windows: int, reference: AcceptedReference | None) -> str:
    """Say what was done, in one sentence."""
    if reference is not None:
        return (
            f"the {len(reference.energies):,} energies that stand for the look-back are what is normal now; "
            "the next limit is their percentile"
        )
    if kind == Kind.DRIFT:
        return "drift is measured from the windows where it was first seen"
    counted = "1 window counts" if windows == 1 else f"{windows:,} windows count"
    return f"{counted} as normal from the next limit on, and so does their rate of outliers from now on"
