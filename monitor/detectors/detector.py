"""Detector protocol, and loading of stored detectors."""

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from config.errors import ModelError
from monitor.detectors import artefact
from monitor.detectors.artefact import Artefact
from monitor.detectors.derivation import Derivation
from monitor.detectors.explain.explanation import Explanation
from monitor.statistics.training_profile import FeatureProfile

_CLASSES = {
    "gaussian_mixture": ("monitor.detectors.gaussian_mixture", "GaussianMixture"),
    "class_conditional": ("monitor.detectors.class_conditional", "ClassConditionalGaussian"),
    "vaegmm": ("monitor.detectors.networks.vaegmm", "VAEGMM"),
    "aegmm": ("monitor.detectors.networks.aegmm", "AEGMM"),
}
KINDS = tuple(_CLASSES)


@runtime_checkable
class Detector(Protocol):
    """Model that assigns every event an energy: -log p(x) in nats, or another score that is larger for outliers."""

    kind: str
    feature_names_: tuple[str, ...] | None
    reference_energies_: NDArray[np.float32] | None
    profile_: FeatureProfile | None
    derivation_: Derivation | None

    @property
    def n_features(self) -> int:
        """The number of columns of the training events."""
        ...

    def fit(self, x: Any) -> Self:
        """Fit on events, (n, D). The result is deterministic for the same seed and events."""
        ...

    def energy(self, x: Any) -> NDArray[np.floating[Any]]:
        """Return the energy of each event, (n,); float32 for float32 events, rounded once."""
        ...

    def energies_and_responsibilities(
        self, x: Any
    ) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]] | None]:
        """Return the energies (n,) and the responsibilities (n, K), or None for models without responsibilities.

        Both are bit-identical for an event in every batch.
        """
        ...

    def explain(self, x: Any) -> Explanation:
        """Return the contribution of each feature to the energy of each event; all arrays are (n, D)."""
        ...

    def to_bytes(self) -> bytes:
        """Return the model as the bytes of an artefact."""
        ...

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the artefact to a file, atomically."""
        ...


def detector_class(kind: str) -> Any:
    """Return the class of a kind, and import only the module of that class.

    Raises:
        ModelError: The kind does not exist.
    """
    if kind not in _CLASSES:
        raise ModelError(f"there is no detector of kind {kind!r}; known are {', '.join(KINDS)}")
    module, name = _CLASSES[kind]
    return getattr(import_module(module), name)


def load_detector(
    source: str | os.PathLike[str] | bytes,
    *,
    kind: str | None = None,
    n_features: int | None = None,
    device: str = "cpu",
) -> Detector:
    """Load a detector from a file or from bytes; neither can contain code.

    Args:
        source: A path, or the bytes of an artefact.
        kind: The expected kind, or None for every kind.
        n_features: The expected number of features before any are derived, or None for every number.
        device: The torch device that computes energies.

    Raises:
        ModelError: The artefact is damaged, of another kind or number of features, or from a newer Outrider.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        stored = artefact.from_bytes(bytes(source), kind=kind)
    elif not isinstance(source, str | os.PathLike):
        raise ModelError(f"a model is loaded from a path or from bytes, not from {source!r}")
    else:
        stored = artefact.load(source, kind=kind)
    n_raw = stored.n_features if stored.derivation is None else len(stored.derivation.fields)
    if n_features is not None and n_raw != n_features:
        raise ModelError(
            f"the {stored.kind} model was fitted on {n_raw} features and the events have "
            f"{n_features}; fit it again on these features"
        )
    build: Callable[..., Detector] = detector_class(stored.kind).from_artefact
    return build(stored, device=device)


__all__ = ["KINDS", "Artefact", "Detector", "detector_class", "load_detector"]
