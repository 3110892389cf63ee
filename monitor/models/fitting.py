"""Fitting: from training events to a model that can be stored, with its reference energies."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.errors import ModelError
from config.streams import ModelSettings
from monitor.detectors.detector import Detector, detector_class
from monitor.detectors.fit.cross_fitting import reference_energies
from monitor.detectors.gaussian_mixture import GaussianMixture
from monitor.models.screening import screen_events
from monitor.models.training_events import TrainingSet, min_training_events
from monitor.statistics.training_profile import build_feature_profile
from storage.control.models import NewModel, artefact_checksum

Float32 = NDArray[np.float32]
_HELD_OUT_DIVISOR = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedModel:
    """A model ready to be stored, and the energies of events that it did not see, ascending."""

    detector: Detector
    reference: Float32
    stored: NewModel


def fit_model(
    training: TrainingSet,
    settings: ModelSettings,
    *,
    labels: NDArray[np.int64] | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> FittedModel:
    """Fit the detector that the settings name, and score events that it did not see.

    Events that are strange beyond doubt, or the share that `contamination` says (`monitor.models.screening`), shape
    neither the model nor its reference. Mixtures are cross-fitted on five contiguous folds; trained networks keep
    the last fifth out.

    Raises:
        ModelError: Too few events, or events that the detector cannot be fitted on.
    """
    needed = min_training_events(len(training.names))
    if len(training) < needed:
        raise ModelError(
            f"a fit on {len(training.names)} features needs at least {needed:,} events, there are {len(training):,} "
            f"({training.rejected:,} records were refused): give more, or name fewer features in event.features"
        )
    features, means = _impute_means(training.features)
    detector, reference, left_out = _fit_detector(features, training.names, settings, labels, progress)
    reference = np.sort(reference)
    detector.reference_energies_ = reference
    detector.profile_ = build_feature_profile(features)
    artefact = detector.to_bytes()
    return FittedModel(
        detector=detector,
        reference=reference,
        stored=NewModel(
            kind=settings.kind,
            artefact=artefact,
            checksum=artefact_checksum(artefact),
            feature_names=training.names,
            summary={
                "events": len(training),
                "refused": training.rejected,
                "features": len(training.names),
                "feature_means": [float(mean) for mean in means],
                "reference_n": len(reference),
                "contamination": settings.contamination,
                "left_out": left_out,
            }
            | _summarise_fit(detector),
        ),
    )


def encode_labels(training: TrainingSet, label: str) -> NDArray[np.int64]:
    """Return the class of each training event: integers as they are, other texts numbered; unknown ones are -1.

    Raises:
        ModelError: No event carries the field.
    """
    texts = training.labels or ()
    known = sorted({text for text in texts if text})
    if not known:
        raise ModelError(f"--label {label}: no event carries this field")
    numbers = [_parse_integer(text) for text in known]
    if all(number is not None for number in numbers):
        code = {text: number for text, number in zip(known, numbers, strict=True) if number is not None}
    else:
        code = {text: i for i, text in enumerate(known)}
    return np.array([-1 if not text else code[text] for text in texts], np.int64)


def _parse_integer(text: str) -> int | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None


def prepare_imported_model(detector: Detector, names: tuple[str, ...]) -> FittedModel:
    """Return a detector from a file as a model that can be stored.

    Raises:
        ModelError: It has no reference energies, or other features than the stream.
    """
    if detector.reference_energies_ is None or not len(detector.reference_energies_):
        raise ModelError(
            "this model has no reference energies, so no limit can be drawn: call calibrate(x) on it before saving"
        )
    own = detector.feature_names_
    if own is not None and names and tuple(own) != tuple(names):
        raise ModelError(f"this model has the features {', '.join(own)}; the stream has {', '.join(names)}")
    kept = tuple(own or names)
    if len(kept) != detector.n_features:
        raise ModelError(
            f"this model has {detector.n_features} features without names, the stream names {len(kept)}: "
            "fit it on a DataFrame, or set event.features"
        )
    detector.feature_names_ = kept
    artefact = detector.to_bytes()
    return FittedModel(
        detector=detector,
        reference=np.sort(detector.reference_energies_),
        stored=NewModel(
            kind=detector.kind,
            artefact=artefact,
            checksum=artefact_checksum(artefact),
            feature_names=kept,
            summary={"imported": True, "reference_n": len(detector.reference_energies_)},
        ),
    )


def _impute_means(features: Float32) -> tuple[Float32, Float32]:
    """Return the features with the column's mean where one is missing, and the means."""
    absent = np.isnan(features)
    if not absent.any():
        return features, features.mean(axis=0, dtype=np.float64).astype(np.float32)
    counted = np.maximum((~absent).sum(axis=0), 1)
    means = (np.where(absent, 0.0, features).sum(axis=0, dtype=np.float64) / counted).astype(np.float32)
    return np.where(absent, means, features).astype(np.float32), means


def _fit_detector(
    features: Float32,
    names: tuple[str, ...],
    settings: ModelSettings,
    labels: NDArray[np.int64] | None,
    progress: Callable[[int, float], None] | None,
) -> tuple[Detector, Float32, int]:
    """Return the detector, its reference energies, and how many events were left out of both."""
    build: Any = detector_class(settings.kind)
    if settings.kind == "class_conditional":
        if labels is None:
            raise ModelError("model.kind class_conditional needs labels: outrider fit STREAM FILE --label FIELD")
        detector = build().fit_features(features, labels)
        held = _n_training_rows(len(features))
        reference = build().fit_features(features[:held], labels[:held]).energy(features[held:])
        detector.feature_names_ = names
        return detector, _drop_largest(reference, settings.contamination), 0
    screened = screen_events(
        features, settings.contamination, lambda x, k: _make_mixture(settings, k).fit(x, progress=progress)
    )
    kept = features if screened.all_kept else features[screened.kept]
    if settings.kind == "gaussian_mixture":
        detector = screened.mixture if screened.all_kept else _make_mixture(settings, None).fit(kept, progress=progress)
        chosen = len(detector.weights_)
        reference = reference_energies(lambda: _make_mixture(settings, chosen), kept)
    else:
        held = _n_training_rows(len(kept))
        detector = build(n_features=kept.shape[1], random_state=settings.random_state)
        detector.fit(kept[:held])
        reference = detector.energy(kept[held:])
    detector.feature_names_ = names
    return detector, np.asarray(reference, np.float32), screened.n_excluded


def _make_mixture(settings: ModelSettings, n_components: int | None) -> GaussianMixture:
    """Return an unfitted mixture of so many components, or as many as the settings say."""
    return GaussianMixture(
        n_components=n_components or settings.n_components,
        covariance_type=settings.covariance_type,
        random_state=settings.random_state,
    )


def _drop_largest(energies: Float32, share: float) -> Float32:
    return np.sort(np.asarray(energies, np.float32))[: len(energies) - round(share * len(energies))]


def _n_training_rows(n: int) -> int:
    """Return how many of the first events are trained on; the last fifth is the reference."""
    return n - n // _HELD_OUT_DIVISOR


def _summarise_fit(detector: Any) -> dict[str, Any]:
    """Return what a person wants to know of the fit."""
    report = getattr(detector, "report_", None)
    summary: dict[str, Any] = {}
    weights = getattr(detector, "weights_", None)
    if weights is not None:
        summary["n_components"] = len(weights)
    for name in ("seconds", "dropped"):
        value = getattr(report, name, None)
        if isinstance(value, int | float):
            summary[name] = value
    lower_bound = getattr(detector, "lower_bound_", None)
    if lower_bound is not None:
        summary["mean_log_likelihood"] = float(lower_bound)
    return summary
