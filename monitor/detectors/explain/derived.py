"""Features that are derived from a field of the event, for explanations that name the field."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class FeatureRole(StrEnum):
    """The quantity that a feature is, seen from the field of the event.

    `LEVEL_DIFFERENCE` is the value minus the field's recent level. `VARIATION` is the logarithm of 0.05 plus the recent
    change from event to event, in units of its mean in training.
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
