"""Detectors: what the daemon may rely on of any of them, and how a stored one is brought back."""

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from config.errors import ModelError
from monitor.detectors import artefact
from monitor.detectors.artefact import Artefact
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
    """A model that gives every event an energy: -log p(x) in nats, or what stands in for it."""

    kind: str
    feature_names_: tuple[str, ...] | None
    reference_energies_: NDArray[np.float32] | None
    profile_: FeatureProfile | None

    @property
    def n_features(self) -> int:
        """The number of columns that it was fitted on."""
        ...

    def fit(self, x: Any) -> Self:
        """Fit on events; the same seed and events give the same model."""
        ...

    def energy(self, x: Any) -> NDArray[np.floating[Any]]:
        """Return the energy of each event; float32 in, float32 out, rounded once."""
        ...

    def energies_and_responsibilities(
        self, x: Any
    ) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]] | None]:
        """Return the energies, and each component's share (n, K) in each event where the model has such shares.

        Both are the same to the bit whatever an event is batched with.
        """
        ...

    def explain(self, x: Any) -> Explanation:
        """Return what makes each event strange, by feature."""
        ...

    def to_bytes(self) -> bytes:
        """Return the model as an artefact's bytes."""
        ...

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the artefact to a file, at once."""
        ...


def detector_class(kind: str) -> Any:
    """Return the class of a kind, importing only that one.

    Raises:
        ModelError: there is no such kind.
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
    """Bring back a detector from its file or its bytes; no code in them is ever run.

    Args:
        source: A path, or the artefact's bytes.
        kind: The only kind that will do, if it matters.
        n_features: The only number of features that will do, if it matters.
        device: Where to score, a torch device.

    Raises:
        ModelError: damaged, cut short, of another kind or width, or from a newer Outrider.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        stored = artefact.from_bytes(bytes(source), kind=kind)
    elif not isinstance(source, str | os.PathLike):
        raise ModelError(f"a model is loaded from a path or from bytes, not from {source!r}")
    else:
        stored = artefact.load(source, kind=kind)
    if n_features is not None and stored.n_features != n_features:
        raise ModelError(
            f"the {stored.kind} model was fitted on {stored.n_features} features and the events have "
            f"{n_features}; fit it again on these features"
        )
    build: Callable[..., Detector] = detector_class(stored.kind).from_artefact
    return build(stored, device=device)


__all__ = ["KINDS", "Artefact", "Detector", "detector_class", "load_detector"]
