"""The acceptance of an incident as normal by a user. Pure functions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.errors import ConfigError
from config.stream_rules import StreamRules
from monitor.incidents.lifecycle import Kind
from monitor.statistics.sketch import EnergySketch
from monitor.thresholds.percentile import MIN_LOOK_BACK_TAIL, exceedance
from storage.control.acceptance import Acceptance, AcceptedReference
from storage.control.records import Incident

MIN_REFERENCE = 20_000
_REFERENCE_TAIL = 50


def plan_acceptance(
    incident: Incident, at_us: int, rules: StreamRules, reference: AcceptedReference | None
) -> Acceptance:
    """Return what becomes normal when a user accepts an incident.

    Args:
        incident: The incident.
        at_us: Event time of the acceptance, the end of the last judged window.
        rules: The rules of the stream. After a look-back, threshold and count model have learned the accepted windows.
        reference: The new reference of the threshold. Only for incidents of kind calibration.
    """
    windowed = Kind(incident.kind) in (Kind.SPIKE, Kind.SLOW_RISE)
    return Acceptance(
        at_us=at_us,
        rate_until_us=at_us + rules.look_back_us if windowed else None,
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


def describe_acceptance(kind: str, windows: int, effects: Mapping[str, Any]) -> str:
    """Return a sentence that describes the effects of an acceptance.

    Args:
        kind: Kind of the incident.
        windows: Number of windows that count again.
        effects: The stored effects (`storage.control.acceptance`).
    """
    if "reference_id" in effects:
        return "energies from the look-back are the new reference; the next threshold is their percentile"
    if kind == Kind.DRIFT:
        return "the drift baseline starts again at the windows where the drift was first seen"
    counted = "1 window counts" if windows == 1 else f"{windows:,} windows count"
    return f"{counted} as normal from the next threshold on; their rate of outliers is normal from now on"
