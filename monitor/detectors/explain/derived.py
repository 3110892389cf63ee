"""Features that are derived from a field of the event, for explanations that name the field."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from monitor.detectors.derivation import CHANGE, Derivation


class FeatureRole(StrEnum):
    """The quantity that a feature is, seen from the field of the event.

    `LEVEL_DIFFERENCE` is the `change` of `monitor.detectors.derivation`, `VARIATION` its `roughness`.
    """

    VALUE = "value"
    LEVEL_DIFFERENCE = "level_difference"
    VARIATION = "variation"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSource:
    """The field of the event that a feature is or is derived from, and its role."""

    field: str
    role: FeatureRole


def find_sources(features: Sequence[str], derived: Mapping[str, FeatureSource] | None) -> tuple[FeatureSource, ...]:
    """Return the source of each feature; a feature that is not derived is its own field."""
    known = derived or {}
    return tuple(known.get(name) or FeatureSource(field=name, role=FeatureRole.VALUE) for name in features)


def sources_of(derivation: Derivation | None) -> dict[str, FeatureSource]:
    """Return the source of each derived feature of a model by its name; empty for a model without them."""
    if derivation is None:
        return {}
    derived = zip(derivation.names, derivation.sources, strict=True)
    roles = {True: FeatureRole.LEVEL_DIFFERENCE, False: FeatureRole.VARIATION}
    return {
        name: FeatureSource(field=derivation.fields[place], role=roles[name.endswith(f".{CHANGE}")])
        for name, place in list(derived)[len(derivation.fields) :]
    }
