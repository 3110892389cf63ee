"""The dispersion that a model takes over from the model before it. Pure functions.

The dispersion of the counts is a property of the stream: how its events cluster. A model that is fitted again each day
would otherwise never have the windows to learn it from. Threshold and rate are those of the new model. The tail law of
energies needs nothing carried: it is fitted to the reference energies that come with each model.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from monitor.statistics.counts import CountModel

MAX_CARRIED_WINDOWS = 300
"""Windows that a carried dispersion counts as at most: over many refits the older ones are forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedDispersion:
    """The dispersion of an earlier model, the number of windows that it counts as, and the state of its count model."""

    dispersion: float
    windows: int
    state: str


def carry_dispersion(law: Mapping[str, Any]) -> CarriedDispersion | None:
    """Return the dispersion to carry of a stored count model; None if it was not learned from windows."""
    if not law["windows"]:
        return None
    return CarriedDispersion(
        dispersion=law["dispersion"], windows=min(law["windows"], MAX_CARRIED_WINDOWS), state=law["state"]
    )


def load_carried(details: Mapping[str, Any]) -> CarriedDispersion | None:
    """Return the carried dispersion that is stored with a threshold; None without one."""
    stored = details.get("carried")
    return None if stored is None else CarriedDispersion(**stored)


def carried_to_json(carried: CarriedDispersion) -> dict[str, Any]:
    """Return a carried dispersion as the JSON object that is stored with thresholds."""
    return asdict(carried)


def add_carried(count_model: CountModel, carried: CarriedDispersion | None) -> CountModel:
    """Return a count model with the mean of its own dispersion and the carried one, by their numbers of windows.

    A model that has learned its own dispersion from as many windows needs no other.
    """
    if carried is None or count_model.windows >= MAX_CARRIED_WINDOWS:
        return count_model
    windows = count_model.windows + carried.windows
    dispersion = (count_model.windows * count_model.dispersion + carried.windows * carried.dispersion) / windows
    is_learned = "learned" in (count_model.state, carried.state)
    return replace(
        count_model, dispersion=dispersion, windows=windows, state="learned" if is_learned else count_model.state
    )
