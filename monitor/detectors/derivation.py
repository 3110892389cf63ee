"""Features that a model derives from the history of a key: names, formulas and their form in an artefact.

The inputs of a model with a derivation are the raw fields, the changes of some of them and the roughness of some:

* `FIELD.change` is the distance of the value from the recent level of its key before the event;
* `FIELD.roughness` is log(0.05 + v / s), with the mean step v of the key's recent values and the mean step s of the
  training events. It is log(1.05) where the values move as usual, and -3 where they do not move at all.

`monitor.statistics.key_history` computes the parts that do not depend on a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.errors import ModelError
from monitor.statistics.key_history import N_CONTEXT, SPAN

ATTRIBUTE = "outrider_derivation"
"""Name of the attribute of a data frame with derived features."""

CHANGE = "change"
ROUGHNESS = "roughness"
ROUGHNESS_OFFSET = 0.05
"""Keeps the roughness of a constant field finite: -3 is far from the usual 0.05, and near enough to be fitted."""

MIN_STEP_DEVIATIONS = 1e-3
"""Smallest training step in standard deviations of the field."""

Float64 = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """The derived features of a model.

    Attributes:
        fields: The raw fields in the order of the events' columns, (D,).
        changes: Indices of the fields whose change is a feature, ascending.
        roughnesses: Indices of the fields whose roughness is a feature, ascending.
        steps: The mean step s of each of the latter in training, positive.
    """

    fields: tuple[str, ...]
    changes: tuple[int, ...]
    roughnesses: tuple[int, ...]
    steps: tuple[float, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the model's inputs: raw fields, changes, roughnesses."""
        return (
            *self.fields,
            *(f"{self.fields[place]}.{CHANGE}" for place in self.changes),
            *(f"{self.fields[place]}.{ROUGHNESS}" for place in self.roughnesses),
        )

    @property
    def sources(self) -> tuple[int, ...]:
        """Return the index of the raw field that each input is derived from; a raw field is its own."""
        return (*range(len(self.fields)), *self.changes, *self.roughnesses)

    def apply(self, events: Floats) -> Float64:
        """Return the inputs of events, (n, D + derived).

        Args:
            events: Raw fields, changes, movements and first weights, (n, 4 D), see `KeyedSource.derive`.

        Raises:
            ModelError: The events have no history.
        """
        d = len(self.fields)
        if events.shape[1] != d * (1 + N_CONTEXT):
            raise ModelError(
                f"a model with derived features needs the history of its {d} fields; the events have "
                f"{events.shape[1]} columns: derive the features with monitor.detectors.derive"
            )
        raw, changes, movements, first_weights = (events[:, place * d : (place + 1) * d] for place in range(4))
        rough = list(self.roughnesses)
        steps = movements[:, rough] / np.array(self.steps) + first_weights[:, rough]
        return np.concatenate(
            [raw, changes[:, list(self.changes)], np.log(ROUGHNESS_OFFSET + steps)], axis=1, dtype=np.float64
        )

    def select(self, changes: Sequence[int], roughnesses: Sequence[int]) -> "Derivation":
        """Return a derivation with some of the changes and roughnesses of this one."""
        steps = dict(zip(self.roughnesses, self.steps, strict=True))
        return Derivation(
            fields=self.fields,
            changes=tuple(changes),
            roughnesses=tuple(roughnesses),
            steps=tuple(steps[place] for place in roughnesses),
        )

    def to_transforms(self) -> list[dict[str, Any]]:
        """Return the derived features in the form that an artefact stores."""
        changes = [{"derive": CHANGE, "field": self.fields[place], "span": SPAN} for place in self.changes]
        return changes + [
            {"derive": ROUGHNESS, "field": self.fields[place], "span": SPAN, "step": step}
            for place, step in zip(self.roughnesses, self.steps, strict=True)
        ]

    @staticmethod
    def from_transforms(
        transforms: Sequence[Mapping[str, Any]], names: Sequence[str] | None, where: str
    ) -> "Derivation | None":
        """Return the derivation that an artefact stores; None if it has no transforms.

        Args:
            transforms: See `to_transforms`.
            names: The names of the model's inputs.
            where: The origin of the artefact, for messages.

        Raises:
            ModelError: The transforms are unknown, or differ from the names.
        """
        if not transforms:
            return None
        known = [each for each in transforms if each.get("derive") in (CHANGE, ROUGHNESS) and each.get("span") == SPAN]
        if len(known) != len(transforms):
            raise ModelError(f"{where} has column transforms that this Outrider does not support; upgrade Outrider")
        fields = tuple(names or ())[: len(names or ()) - len(transforms)]
        try:
            rough = [each for each in transforms if each["derive"] == ROUGHNESS]
            derivation = Derivation(
                fields=fields,
                changes=tuple(fields.index(each["field"]) for each in transforms if each["derive"] == CHANGE),
                roughnesses=tuple(fields.index(each["field"]) for each in rough),
                steps=tuple(float(each["step"]) for each in rough),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{where} has damaged derived features ({error}); fit the model again") from error
        if derivation.names != tuple(names or ()) or not all(0 < step < np.inf for step in derivation.steps):
            raise ModelError(f"{where} has derived features that differ from its columns; fit the model again")
        return derivation


def derive_all(fields: Sequence[str], events: Floats, derived: Sequence[int] | None = None) -> Derivation:
    """Return the derivation of training events with the change and the roughness of some fields, by default of all.

    The mean step of a field is that of all its steps: the sum of the movements over the sum of their weights.

    Args:
        fields: The raw fields, (D,).
        events: Raw fields with their history, (n, 4 D).
        derived: Indices of the fields to derive features of.

    Raises:
        ModelError: A field has the name of a derived feature.
    """
    d = len(fields)
    raw, _, movements, first_weights = (events[:, place * d : (place + 1) * d] for place in range(4))
    weights = (1 - first_weights).sum(axis=0)
    mean_steps = movements.sum(axis=0) / np.where(weights > 0, weights, 1.0)
    present = ~np.isnan(raw)
    counts = np.maximum(present.sum(axis=0), 1)
    centred = np.where(present, raw - np.where(present, raw, 0.0).sum(axis=0) / counts, 0.0)
    deviations = np.sqrt(np.square(centred).sum(axis=0) / counts)
    floors = MIN_STEP_DEVIATIONS * np.where(deviations > 0, deviations, 1.0)
    chosen = tuple(range(d)) if derived is None else tuple(sorted(derived))
    derivation = Derivation(
        fields=tuple(fields),
        changes=chosen,
        roughnesses=chosen,
        steps=tuple(float(max(mean_steps[place], floors[place])) for place in chosen),
    )
    clash = sorted(set(fields) & set(derivation.names[d:]))
    if clash:
        raise ModelError(
            f"the field {clash[0]} has the name of a derived feature: leave its field out of event.derive, or rename it"
        )
    return derivation
