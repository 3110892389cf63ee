"""Fitting: build a model that can be stored, with its reference energies, from training events."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.errors import ModelError
from config.streams import ModelSettings
from monitor.detectors.derivation import Derivation, derive_all
from monitor.detectors.detector import Detector, detector_class
from monitor.detectors.fit.cross_fitting import out_of_fold_energies
from monitor.detectors.fit.mixture_fit import FitReport
from monitor.detectors.gaussian_mixture import GaussianMixture
from monitor.models.screening import ScreeningResult, screen_events
from monitor.models.training_set import TrainingSet, min_training_events
from monitor.models.warm_up_progress import format_rejections
from monitor.statistics.precision import needs_float64
from monitor.statistics.training_profile import Floats, build_feature_profile
from storage.control.models import NewModel

Float32 = NDArray[np.float32]
_HELD_OUT_DIVISOR = 5
_HELD_OUT_CAP = 0.99

MAX_FIRST_WEIGHT = 0.5
"""Training events have more than this share of their mean step from events of their key, not from its start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedModel:
    """A fitted model.

    Attributes:
        detector: The detector in memory.
        reference: Energies of events outside of its training rows, ascending.
        all_energies: The reference energies together with those of the excluded outliers, ascending.
        new_model: The row to store.
    """

    detector: Detector
    reference: Float32
    all_energies: Float32
    new_model: NewModel


def fit_model(
    training: TrainingSet,
    settings: ModelSettings,
    *,
    labels: NDArray[np.int64] | None = None,
    progress: Callable[[int, float], None] | None = None,
    keep_duration: bool = True,
) -> FittedModel:
    """Fit the detector of the settings, and compute reference energies on events outside of its training rows.

    Gross outliers, or the fraction given by `contamination`, are excluded from the model and its reference energies;
    events of usual episodes from the model only (see `monitor.models.screening`). Reference energies of mixtures come
    from cross-fitting on five contiguous folds. Networks hold out the last fifth of the events; for class-conditional
    models a second fit does.

    Args:
        training: The training events.
        settings: Kind and options of the model.
        labels: The class of each event, for `class_conditional`.
        progress: Called during the fit of a mixture with the iteration and the lower bound.
        keep_duration: Store how long the fit took. False: equal fits have equal bytes.

    Raises:
        ModelError: Too few events, or the detector cannot be fitted on them.
    """
    needed = min_training_events(len(training.names))
    if len(training) < needed:
        raise ModelError(
            f"a fit on {len(training.names)} features needs at least {needed:,} events, there are {len(training):,} "
            f"({describe_rejected(training)}): give more events, or fewer event.features"
        )
    derivation, inputs, rows = derive_inputs(training)
    features, means = _impute_means(_choose_precision(inputs))
    names = training.names if derivation is None else derivation.names
    weights = None if training.weights is None else training.weights[rows]
    fit = _fit_detector(features, names, settings, None if labels is None else labels[rows], progress, weights)
    detector, reference = fit.detector, fit.sort_energies(fit.in_reference)
    detector.reference_energies_ = reference
    detector.derivation_ = derivation
    detector.profile_ = build_feature_profile(features)
    if not keep_duration:
        _remove_duration(detector)
    return FittedModel(
        detector=detector,
        reference=reference,
        all_energies=fit.sort_energies(np.ones(len(fit.energies), np.bool_)),
        new_model=NewModel(
            kind=settings.kind,
            artefact=detector.to_bytes(),
            feature_names=training.names,
            summary={
                "events": len(training),
                "refused": training.rejected,
                "features": len(training.names),
                "feature_means": [float(mean) for mean in means],
                "reference_n": len(reference),
                "held_out_energy": mean_held_out_energy(reference),
                "derive": _summarise_derivation(derivation),
                "contamination": settings.contamination,
            }
            | _summarise_screening(fit.screened)
            | _summarise_fit(detector),
        ),
    )


def mean_held_out_energy(reference: Float32) -> float:
    """Return the mean of held-out energies; those above their 99th percentile count as much as it, as in the gate."""
    energies = reference.astype(np.float64)
    return float(np.minimum(energies, np.quantile(energies, _HELD_OUT_CAP)).mean())


def derive_inputs(training: TrainingSet) -> tuple[Derivation | None, Floats, NDArray[np.bool_]]:
    """Return the derived features, the inputs of the model, and the training events that they are of, (n,).

    Events whose key has little history are left out, unless they are the majority: their changes are zero, or still
    large. Without derived features the inputs are the fields of all events.
    """
    everything = np.ones(len(training), np.bool_)
    if training.history is None:
        return None, training.features, everything
    d = len(training.names)
    events = np.concatenate([training.features, training.history.context], axis=1, dtype=np.float64)
    settled = (events[:, 3 * d :].max(axis=1) < MAX_FIRST_WEIGHT) if len(events) else everything
    rows = settled if 2 * settled.sum() > len(events) else everything
    derivation = derive_all(training.names, events[rows], training.history.derived)
    return derivation, derivation.apply(events[rows]), rows


def _summarise_derivation(derivation: Derivation | None) -> list[str] | str:
    """Return the fields that features are derived of, in the form of `event.derive`."""
    return "none" if derivation is None else [derivation.fields[place] for place in derivation.changes]


def _remove_duration(detector: Any) -> None:
    """Set the duration of a fit to zero in its report."""
    report = getattr(detector, "report_", None)
    if isinstance(report, FitReport):
        detector.report_ = replace(report, seconds=0.0)
    training = getattr(detector, "training_", None)
    if isinstance(training, dict):
        training["seconds"] = 0.0


def describe_rejected(training: TrainingSet) -> str:
    """Return the number of rejected records and their reasons as text."""
    reasons = f": {format_rejections(training.rejections)}" if training.rejections else ""
    return f"{training.rejected:,} records were rejected{reasons}"


def encode_labels(training: TrainingSet, label: str) -> NDArray[np.int64]:
    """Return the class of each training event, (n,): integer labels unchanged, other labels numbered; -1 if missing.

    Raises:
        ModelError: No event has the field.
    """
    texts = training.labels or ()
    classes = sorted({text for text in texts if text})
    if not classes:
        raise ModelError(f"--label {label}: no event has this field")
    numbers = [_parse_integer(text) for text in classes]
    if all(number is not None for number in numbers):
        code = {text: number for text, number in zip(classes, numbers, strict=True) if number is not None}
    else:
        code = {text: i for i, text in enumerate(classes)}
    return np.array([-1 if not text else code[text] for text in texts], np.int64)


def _parse_integer(text: str) -> int | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None


MIN_IMPORTED_REFERENCE = 100
"""The minimum number of reference energies of an imported model: with fewer, no percentile above 99 is estimated."""

MAX_IMPORTED_COMPONENTS = 1_000
"""The maximum number of components of an imported model. The time to score an event grows with it."""


def prepare_imported_model(detector: Detector, names: tuple[str, ...]) -> FittedModel:
    """Prepare a detector loaded from a file for storing.

    Args:
        detector: The detector.
        names: The features of the stream.

    Raises:
        ModelError: The detector has too few reference energies or too many components, a name occurs twice, or its
            features differ from those of the stream.
    """
    reference = detector.reference_energies_
    if reference is None or len(reference) < MIN_IMPORTED_REFERENCE:
        n = len(reference) if reference is not None and len(reference) else "no"
        raise ModelError(
            f"this model has {n} reference energies, so no threshold can be estimated: call calibrate(x) with at least "
            f"{MIN_IMPORTED_REFERENCE} events before saving"
        )
    n_components = len(getattr(detector, "weights_", ()))
    if n_components > MAX_IMPORTED_COMPONENTS:
        raise ModelError(
            f"this model has {n_components:,} components; at most {MAX_IMPORTED_COMPONENTS:,} are supported: fit it "
            "with fewer"
        )
    derivation = detector.derivation_
    detector_names = detector.feature_names_ if derivation is None else derivation.fields
    n_features = detector.n_features if derivation is None else len(derivation.fields)
    if detector_names is not None and names and tuple(detector_names) != tuple(names):
        raise ModelError(f"this model has the features {', '.join(detector_names)}; the stream has {', '.join(names)}")
    feature_names = tuple(detector_names or names)
    twice = sorted(name for name, n in Counter(feature_names).items() if n > 1)
    if twice:
        raise ModelError(
            f"this model has several features named {', '.join(twice)}; fit it on a DataFrame with unique column names"
        )
    if len(feature_names) != n_features:
        raise ModelError(
            f"this model has {n_features} features without names, the stream names {len(feature_names)}: "
            "fit it on a DataFrame, or set event.features"
        )
    detector.feature_names_ = feature_names if derivation is None else derivation.names
    return FittedModel(
        detector=detector,
        reference=np.sort(reference),
        all_energies=np.sort(reference),
        new_model=NewModel(
            kind=detector.kind,
            artefact=detector.to_bytes(),
            feature_names=feature_names,
            summary={"imported": True, "reference_n": len(reference), "derive": _summarise_derivation(derivation)},
        ),
    )


def _choose_precision(features: Floats) -> Floats:
    """Return the features in float32 unless that would hide differences between events."""
    return features if needs_float64(features) else features.astype(np.float32, copy=False)


def _impute_means(features: Floats) -> tuple[Floats, Floats]:
    """Replace missing values by the mean of their column; return the features and the means, (D,)."""
    missing = np.isnan(features)
    if not missing.any():
        return features, features.mean(axis=0, dtype=np.float64).astype(features.dtype)
    n_present = np.maximum((~missing).sum(axis=0), 1)
    means = (np.where(missing, 0.0, features).sum(axis=0, dtype=np.float64) / n_present).astype(features.dtype)
    return np.where(missing, means, features).astype(features.dtype), means


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """A fitted detector, the energies of held-out events, and the mask of those in the reference, both (n,).

    `weights` is the number of events that each energy stands for; None if all stand for the same number.
    """

    detector: Detector
    energies: Float32
    in_reference: NDArray[np.bool_]
    screened: ScreeningResult | None
    weights: NDArray[np.float64] | None = None

    def sort_energies(self, mask: NDArray[np.bool_]) -> Float32:
        """Return the energies under a mask, ascending; with weights their quantiles, as many as equal ones would be."""
        energies = self.energies[mask]
        if self.weights is None:
            return np.sort(energies)
        return weighted_quantiles(energies, self.weights[mask])


def weighted_quantiles(energies: Float32, weights: NDArray[np.float64]) -> Float32:
    """Return the quantiles of weighted energies at n' equally spaced ranks, ascending.

    n' is the effective sample size (sum of w)^2 / sum of w^2 (Kish 1965): so many energies of equal weight are as
    informative, so that the errors of a percentile are those of their number.
    """
    order = np.argsort(energies, kind="stable")
    shares = np.cumsum(weights[order]) / weights.sum()
    n = max(int(weights.sum() ** 2 / (weights**2).sum()), 1)
    rows = np.searchsorted(shares, (np.arange(n) + 0.5) / n)
    quantiles: Float32 = energies[order][np.minimum(rows, len(energies) - 1)]
    return quantiles


def _fit_detector(
    features: Floats,
    names: tuple[str, ...],
    settings: ModelSettings,
    labels: NDArray[np.int64] | None,
    progress: Callable[[int, float], None] | None,
    weights: NDArray[np.float64] | None = None,
) -> _Fit:
    """Fit the detector on the events that screening keeps, and compute the energies of held-out events.

    Screening and networks take every event once, whatever it stands for.
    """
    if settings.kind == "class_conditional":
        return _fit_class_conditional(features, names, settings, labels)
    make_detector: Any = detector_class(settings.kind)
    screened = screen_events(
        features, settings.contamination, lambda x, k: _make_mixture(settings, k).fit(x, progress=progress)
    )
    training_rows = features if screened.all_kept else features[screened.kept]
    if settings.kind == "gaussian_mixture":
        detector = (
            screened.mixture
            if screened.all_kept
            else _make_mixture(settings, None).fit(training_rows, progress=progress)
        )
        if weights is not None:
            detector = _make_mixture(settings, None).fit(
                training_rows, sample_weight=weights[screened.kept], progress=progress
            )
        n_components = len(detector.weights_)
        energies = out_of_fold_energies(
            lambda: _make_mixture(settings, n_components), features, kept=screened.kept, weights=weights
        )
        in_reference, held_out = screened.in_reference, weights
    else:
        n_training = _n_training_rows(len(training_rows))
        detector = make_detector(n_features=training_rows.shape[1], random_state=settings.random_state)
        detector.fit(training_rows[:n_training])
        first = int(np.flatnonzero(screened.kept)[n_training])
        energies, in_reference = detector.energy(features[first:]), screened.in_reference[first:]
        held_out = None if weights is None else weights[first:]
    detector.feature_names_ = names
    energies = np.asarray(energies, np.float32)
    return _Fit(detector=detector, energies=energies, in_reference=in_reference, screened=screened, weights=held_out)


def _fit_class_conditional(
    features: Floats, names: tuple[str, ...], settings: ModelSettings, labels: NDArray[np.int64] | None
) -> _Fit:
    """Fit a class-conditional model; its reference comes from a second fit on the first four fifths."""
    if labels is None:
        raise ModelError("model.kind class_conditional needs labels: outrider fit STREAM FILE --label FIELD")
    make_detector: Any = detector_class(settings.kind)
    detector = make_detector().fit_features(features, labels)
    n_training = _n_training_rows(len(features))
    energies = make_detector().fit_features(features[:n_training], labels[:n_training]).energy(features[n_training:])
    detector.feature_names_ = names
    energies = np.sort(np.asarray(energies, np.float32))
    in_reference = np.arange(len(energies)) < len(energies) - round(settings.contamination * len(energies))
    return _Fit(detector=detector, energies=energies, in_reference=in_reference, screened=None)


def _summarise_screening(screened: ScreeningResult | None) -> dict[str, int]:
    """Return the numbers of events that screening left out of the model, returned, and has in the reference only."""
    if screened is None:
        return {"left_out": 0}
    return {
        "left_out": screened.n_excluded,
        "recurring": screened.n_recurring,
        "in_reference_only": screened.n_episodic,
    }


def _make_mixture(settings: ModelSettings, n_components: int | None) -> GaussianMixture:
    """Return an unfitted mixture with `n_components`, by default the number in the settings."""
    return GaussianMixture(
        n_components=n_components or settings.n_components,
        covariance_type=settings.covariance_type,
        random_state=settings.random_state,
    )


def _n_training_rows(n: int) -> int:
    """Return the number of events, counted from the first, to train on; the last fifth is the reference."""
    return n - n // _HELD_OUT_DIVISOR


def _summarise_fit(detector: Any) -> dict[str, Any]:
    """Return figures of the fit for the model's summary."""
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
