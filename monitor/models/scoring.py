"""Scoring of events with stored models, on one device.

The scorer caches the models that the schedule still needs and drops the others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from config.errors import ConfigError, ModelError
from monitor.detectors.derivation import Derivation
from monitor.detectors.detector import Detector, load_detector
from monitor.detectors.gaussian_mixture import GaussianMixture
from monitor.statistics.drift_sums import MeasuredEvents, code_events
from monitor.statistics.part import Scale
from monitor.statistics.training_profile import Floats, TrainingProfile, quantile_edges
from storage.control.models import ModelRecord

_MAX_FLOAT32 = float(np.finfo(np.float32).max)
_MODEL_CACHE_SIZE = 4  # the active model, the next, the previous one for late events, and one shadow model


def pick_device(wanted: str) -> str:
    """Return the device for scoring and set torch to one thread; `auto` is CUDA if available, else the CPU.

    Raises:
        ConfigError: `cuda` is configured but not available.
    """
    # Streams score in parallel, one thread each; additional threads in each would only compete for cores.
    torch.set_num_threads(1)
    available = torch.cuda.is_available()
    if wanted == "auto":
        return "cuda" if available else "cpu"
    if wanted == "cuda" and not available:
        raise ConfigError("device: cuda is configured, but torch finds no CUDA device here; set device: auto or cpu")
    return wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A stored model on the scoring device.

    Attributes:
        record: The row of the models table.
        detector: The detector.
        reference: Its reference energies, (n,), ascending.
        feature_means: The training means that replace missing features; None for an imported model.
        scale: The scale of the energies.
        training_profile: The reference of the drift statistics; None for a model that was fitted before drift
            monitoring existed.
        component_names: The names of the mixture's components by their centres, such as "near amount 20"; empty for
            other detectors.
    """

    record: ModelRecord
    detector: Detector
    reference: NDArray[np.float32]
    feature_means: Floats | None
    scale: Scale
    training_profile: TrainingProfile | None = None
    component_names: tuple[str, ...] = ()

    @property
    def derivation(self) -> Derivation | None:
        """The features that the model derives from the history of a key; None if it takes the raw fields alone."""
        return self.detector.derivation_

    @property
    def feature_dtype(self) -> np.dtype[Any]:
        """The precision in which the model takes features: float64 where float32 would hide differences."""
        return feature_dtype_of(self.detector)


class Scorer:
    """Scores events with stored models on one device. Not thread-safe."""

    def __init__(self, load: Callable[[int], LoadedModel]) -> None:
        self._load = load
        self._models: dict[int, LoadedModel] = {}

    def _load_cached(self, model_id: int) -> LoadedModel:
        model = self._models.pop(model_id, None) or self._load(model_id)
        self._models[model_id] = model
        while len(self._models) > _MODEL_CACHE_SIZE:
            self._models.pop(next(iter(self._models)))
        return model

    def scale(self, model_id: int) -> Scale:
        """Return the scale of a model's energies."""
        return self._load_cached(model_id).scale

    def energies(self, features: Floats, model_id: int) -> NDArray[np.float32]:
        """Return the energy of each event, (n,), in nats, rounded once to float32.

        NaN features (`missing: mean`) are replaced by the model's training means.
        """
        model = self._load_cached(model_id)
        if not len(features):
            return np.empty(0, np.float32)
        return _clip_to_float32(model.detector.energy(_convert_features(features, model)))

    def measure(self, features: Floats, model_id: int) -> MeasuredEvents:
        """Return the energies of the events, and their codes for the drift statistics."""
        model = self._load_cached(model_id)
        if not len(features):
            return MeasuredEvents(energies=np.empty(0, np.float32), feature_dtype=model.feature_dtype)
        inputs = _convert_features(features, model)
        n_raw = len(model.record.feature_names)
        derived = None if model.derivation is None else inputs[:, n_raw:]
        names = () if model.derivation is None else model.derivation.names[n_raw:]
        if model.training_profile is None:
            return MeasuredEvents(
                energies=_clip_to_float32(model.detector.energy(inputs)),
                feature_dtype=model.feature_dtype,
                derived=derived,
                derived_names=names,
            )
        raw_energies, responsibilities = model.detector.energies_and_responsibilities(inputs)
        energies = _clip_to_float32(raw_energies)
        # Drift watches the raw fields: the derived ones, and the components that follow them, change all the time.
        shares = responsibilities if model.derivation is None else None
        return MeasuredEvents(
            energies=energies,
            codes=code_events(model.training_profile, inputs[:, :n_raw], energies, shares),
            feature_dtype=model.feature_dtype,
            derived=derived,
            derived_names=names,
        )


def _convert_features(features: Floats, model: LoadedModel) -> Floats:
    """Return the model's inputs in its precision, with missing ones replaced by the training means.

    Args:
        features: The raw fields, (n, D), with or without their history behind them.
        model: The model.

    Raises:
        ModelError: A feature is missing and the model has no means.
    """
    if model.derivation is None:
        features = features[:, : len(model.record.feature_names)]
    else:
        features = model.derivation.apply(features)
    features = features.astype(model.feature_dtype, copy=False)
    missing = np.isnan(features)
    if not missing.any():
        return features
    if model.feature_means is None:
        raise ModelError("event.missing: mean needs a model fitted by `outrider`; an imported one has no means")
    return np.where(missing, model.feature_means, features).astype(model.feature_dtype)


def _clip_to_float32(energies: NDArray[np.floating]) -> NDArray[np.float32]:
    """Clip the energies to the finite range of float32, which the tail statistics require."""
    return np.clip(np.asarray(energies, np.float64), -_MAX_FLOAT32, _MAX_FLOAT32).astype(np.float32)


def load_model(record: ModelRecord, artefact: bytes, device: str) -> LoadedModel:
    """Load a stored model onto the scoring device.

    Raises:
        ModelError: The artefact is damaged or has no reference energies.
    """
    detector = load_detector(artefact, kind=record.kind, n_features=len(record.feature_names), device=device)
    if detector.reference_energies_ is None:
        raise ModelError(f"model {record.version} has no reference energies: fit it again")
    feature_means = record.summary.get("feature_means")
    return LoadedModel(
        record=record,
        detector=detector,
        reference=np.sort(detector.reference_energies_),
        feature_means=None if feature_means is None else np.asarray(feature_means, feature_dtype_of(detector)),
        scale=Scale.from_energies(detector.reference_energies_),
        training_profile=training_profile_of(detector),
        component_names=detector.name_components() if isinstance(detector, GaussianMixture) else (),
    )


def training_profile_of(detector: Detector) -> TrainingProfile | None:
    """Return the training profile of the raw fields; None if it has no feature profile or reference energies."""
    if detector.profile_ is None or detector.reference_energies_ is None:
        return None
    derivation = detector.derivation_
    profile = detector.profile_ if derivation is None else detector.profile_.head(len(derivation.fields))
    return TrainingProfile(features=profile, energy_edges=quantile_edges(detector.reference_energies_))


def feature_dtype_of(detector: Detector) -> np.dtype[Any]:
    """Return the precision in which a detector takes the features of a stream."""
    return np.dtype(np.float32) if detector.profile_ is None else detector.profile_.feature_dtype


def explain_events(
    model: LoadedModel, events: Sequence[Mapping[str, float]], *, top: int = 3
) -> list[list[dict[str, Any]]]:
    """Return the lines with the largest contributions for each event, as rows for JSON (`Explanation.line_rows`).

    Args:
        model: The model that scored the events.
        events: Features by name, as outliers are stored; missing ones are replaced by the training mean.
        top: The number of lines for each event; features that move together are on one line.
    """
    explanations = model.detector.explain(to_inputs(model, events)).line_rows(top)
    # JSON has no infinity, and PostgreSQL rejects invalid JSON.
    return [
        [{name: _to_json_value(value) for name, value in reason.items()} for reason in reasons]
        for reasons in explanations
    ]


def to_inputs(model: LoadedModel, events: Sequence[Mapping[str, float | None]]) -> Floats:
    """Return the model's inputs, (n, D), from features by name; missing ones are replaced by the training mean."""
    dtype = model.feature_dtype
    names = model.record.feature_names if model.derivation is None else model.derivation.names
    # A stored null is a missing value; numpy reads None as NaN.
    x = np.array([[event.get(name, np.nan) for name in names] for event in events], dtype)
    if model.feature_means is not None:
        x = np.where(np.isnan(x), model.feature_means, x).astype(dtype)
    return x


def _to_json_value(value: float | str | tuple[float, ...]) -> float | str | list[float] | None:
    """Return a value of JSON: None for a number that is not finite; of several numbers the finite ones."""
    if isinstance(value, tuple):
        return [each for each in value if np.isfinite(each)]
    return value if isinstance(value, str) or np.isfinite(value) else None
