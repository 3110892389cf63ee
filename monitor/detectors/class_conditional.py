"""Detector with one Gaussian per class, fitted on labelled features."""

import os
from collections.abc import Callable, Iterable
from typing import Any, Literal, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from config.errors import ModelError
from monitor.detectors import artefact as files
from monitor.detectors.artefact import Artefact
from monitor.detectors.derivation import Derivation
from monitor.detectors.explain.derived import sources_of
from monitor.detectors.explain.explanation import Explanation
from monitor.detectors.explain.mixture_explainer import MixtureExplainer, make_explainer
from monitor.detectors.gmm_functions import (
    BLOCK_ROWS,
    LOG_2PI,
    PADDING_ROWS,
    MahalanobisMetric,
    cholesky_with_ridge,
    make_metric,
)
from monitor.detectors.inputs.arguments import check_device, check_number, make_not_fitted_error
from monitor.detectors.inputs.checks import FloatArray, check_events, check_labels
from monitor.detectors.inputs.feature_model import apply_feature_model, check_feature_model
from monitor.detectors.mixture_values import are_lower_triangular
from monitor.detectors.score.threads import full_precision_matmul, single_torch_thread
from monitor.statistics.training_profile import FeatureProfile, build_feature_profile

ScoreKind = Literal["likelihood", "mahalanobis"]
F64 = NDArray[np.float64]

KIND = "class_conditional"
_OWNER = "ClassConditionalGaussian"
_BLOCK_ROWS = (
    2 * BLOCK_ROWS
)  # every scored block has this many rows, so that an energy does not depend on the other events
_EVENTS_PER_BLOCK = _BLOCK_ROWS - PADDING_ROWS
_MAX_FLOAT = {np.dtype(t): np.finfo(t).max for t in (np.float32, np.float64)}


class ClassConditionalGaussian:
    """Score events by the Gaussians of known classes.

    `score="likelihood"` is -log sum_c pi_c N(z | mu_c, Sigma_c), in nats; `score="mahalanobis"` is
    min_c (z - mu_c)^T Sigma_c^-1 (z - mu_c) / D. The two rank events differently if the classes have different
    covariances or weights. Both are larger for outliers.

    Args:
        model: Callable that converts the inputs of `fit` and `predict` to features, (n, D). A torch module runs in
            evaluation mode without gradients. With None, the inputs are the features.
        score: "likelihood" or "mahalanobis".
        reg: Added to every variance, in the squared units of the features.
        device: The torch device that computes the scores.
    """

    kind = KIND

    def __init__(
        self,
        model: Callable[[Any], Any] | None = None,
        *,
        score: ScoreKind = "likelihood",
        reg: float = 1e-6,
        device: str = "cpu",
    ) -> None:
        check_feature_model(_OWNER, model)
        if score not in ("likelihood", "mahalanobis"):
            raise ModelError(f"{_OWNER}: score must be 'likelihood' or 'mahalanobis', not {score!r}")
        self.model = model
        self.score: ScoreKind = score
        self.reg = check_number(_OWNER, "reg", reg, low=0.0)
        self.device = check_device(_OWNER, device)
        self.feature_names_: tuple[str, ...] | None = None
        self.reference_energies_: NDArray[np.float32] | None = None
        self.profile_: FeatureProfile | None = None
        self.derivation_: Derivation | None = None
        self._metrics: dict[torch.dtype, MahalanobisMetric] = {}
        self._explainer: MixtureExplainer | None = None

    def fit(self, data: Any, labels: Any = None) -> Self:
        """Fit on a data loader of (batch, labels), or on an array of inputs and its labels.

        Raises:
            ModelError: The loader is empty or does not yield pairs; see also `fit_features`.
        """
        if labels is not None:
            return self.fit_features(self._apply_model(data), labels)
        if data is None or isinstance(data, np.ndarray | torch.Tensor) or hasattr(data, "to_numpy"):
            raise ModelError(
                f"{_OWNER}: labels are needed; call fit(x, labels), or fit(loader) with batches of (x, labels)"
            )
        features, known_labels = [], []
        for batch, batch_labels in _iter_labelled_batches(data):
            z = check_events(self._apply_model(batch), owner=_OWNER).values
            features.append(z)
            known_labels.append(check_labels(batch_labels, len(z), owner=_OWNER))
        if not features:
            raise ModelError(f"{_OWNER}: the data loader yields no batch; pass at least one labelled batch")
        if len({z.shape[1] for z in features}) > 1:
            widths = sorted({z.shape[1] for z in features})
            raise ModelError(f"{_OWNER}: the model returns features of different widths: {widths}")
        return self.fit_features(np.concatenate(features), np.concatenate(known_labels))

    def fit_features(self, z: Any, labels: Any) -> Self:
        """Fit mean, maximum-likelihood covariance and weight of each class; rows with labels < 0 are ignored.

        Raises:
            ModelError: `z` or the labels are invalid, or all labels are negative.
        """
        events = check_events(z, owner=_OWNER, squares=True)
        known_labels = check_labels(labels, len(events.values), owner=_OWNER)
        classes = np.unique(known_labels[known_labels >= 0])
        if not len(classes):
            raise ModelError(
                f"{_OWNER}: no known sample: all {len(known_labels)} labels are negative (unknown); label some events"
            )
        d = events.values.shape[1]
        self.classes_ = classes
        counts = np.array([int((known_labels == c).sum()) for c in classes])
        self.weights_ = counts / counts.sum()
        self.means_ = np.empty((len(classes), d))
        self.covariances_ = np.empty((len(classes), d, d))
        for k, c in enumerate(classes):
            rows = events.values[known_labels == c].astype(np.float64)
            self.means_[k] = rows.mean(axis=0)
            rows -= self.means_[k]
            self.covariances_[k] = rows.T @ rows / len(rows)
        self.feature_names_ = events.names
        self.profile_ = build_feature_profile(events.values)
        self._set_factors(cholesky_with_ridge(torch.from_numpy(self.covariances_), self.reg).numpy())
        self.training_ = {
            "rows": int(counts.sum()),
            "unknown": int((known_labels < 0).sum()),
            "classes": counts.tolist(),
        }
        return self

    def predict(self, x: Any) -> FloatArray:
        """Return the score of each input, (n,); the feature model is applied first."""
        return self.predict_features(self._apply_model(x))

    def predict_features(self, z: Any) -> FloatArray:
        """Return the score of each row of features, (n,); larger for outliers.

        Raises:
            ModelError: The detector is not fitted, or `z` does not hold finite numbers in rows of the fitted width.
        """
        self._check_fitted()
        rows = check_events(z, owner=_OWNER, n_features=self.n_features, names=self.feature_names_).values
        out = np.empty(len(rows), dtype=rows.dtype)
        with single_torch_thread(), full_precision_matmul():
            self._score_rows(rows, out)
        return out

    def _score_rows(self, rows: FloatArray, out: FloatArray) -> None:
        block = np.empty((_BLOCK_ROWS, self.n_features), dtype=rows.dtype)
        for start in range(0, len(rows), _EVENTS_PER_BLOCK):
            part = rows[start : start + _EVENTS_PER_BLOCK]
            block[: len(part)] = part
            block[len(part) :] = part[0]
            out[start : start + len(part)] = self._score_block(block)[: len(part)]

    def energy(self, x: Any) -> FloatArray:
        """Return `predict(x)`, the energy of each event, (n,): the common method of all detectors."""
        return self.predict(x)

    def energies_and_responsibilities(self, x: Any) -> tuple[FloatArray, None]:
        """Return the score of each event, (n,), and None: the responsibilities of classes are not monitored."""
        return self.predict(x), None

    def explain(self, x: Any) -> Explanation:
        """Return the contribution of each feature to the energy under the mixture of the classes.

        The features are the outputs of the feature model. Contributions are nats of the likelihood, for both values
        of `score`. They are in comparison with a typical event drawn from that mixture.
        """
        self._check_fitted()
        z = self._apply_model(x)
        rows = check_events(z, owner=_OWNER, n_features=self.n_features, names=self.feature_names_, squares=True).values
        if self._explainer is None:
            self._explainer = make_explainer(
                self.weights_,
                self.means_,
                self.factors_,
                np.stack([solve_triangular(f, np.eye(len(f)), lower=True) for f in self.factors_]),
                features=self.feature_names_ or tuple(f"x{j}" for j in range(self.n_features)),
                profile=self.profile_,
                typical=None,
                derived=sources_of(self.derivation_),
            )
        return self._explainer.explain(rows.astype(np.float64))

    @property
    def n_features(self) -> int:
        """The number of features, after the feature model."""
        self._check_fitted()
        return int(self.means_.shape[1])

    @property
    def feature_means_(self) -> F64:
        """The mean of each feature over the labelled samples, (D,)."""
        self._check_fitted()
        return cast("F64", self.weights_ @ self.means_)

    def to_artefact(self) -> Artefact:
        """Return the fitted classes as an artefact, without the feature model."""
        self._check_fitted()
        return Artefact(
            kind=KIND,
            n_features=self.n_features,
            feature_names=self.feature_names_,
            tensors={
                "classes": self.classes_,
                "weights": self.weights_,
                "means": self.means_,
                "covariances": self.covariances_,
                "factors": self.factors_,
            },
            settings={"score": self.score, "reg": self.reg, "feature_model": self.model is not None},
            training=self.training_,
            reference_energies=self.reference_energies_,
            profile=self.profile_,
            derivation=self.derivation_,
        )

    def to_bytes(self) -> bytes:
        """Return the bytes of the artefact."""
        return files.to_bytes(self.to_artefact())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the artefact to `path`."""
        files.save(self.to_artefact(), path)

    @classmethod
    def from_artefact(cls, stored: Artefact, *, model: Callable[[Any], Any] | None = None, device: str = "cpu") -> Self:
        """Build the detector from an artefact; the feature model is not stored and must be passed.

        Raises:
            ModelError: The artefact has another kind or invalid values, or the feature model is missing.
        """
        if stored.kind != KIND:
            raise ModelError(f"a {stored.kind} model is not a {KIND} model; load it with load_detector")
        if stored.settings.get("feature_model") and model is None:
            raise ModelError(
                f"{_OWNER}: this model was fitted on the outputs of a feature model, which is not in the file; "
                "load it with the same callable: ClassConditionalGaussian.load(path, model=...)"
            )
        score, reg = stored.settings.get("score"), stored.settings.get("reg")
        if score not in ("likelihood", "mahalanobis") or not isinstance(reg, int | float):
            raise ModelError(f"the {KIND} model's settings are invalid: score={score!r}, reg={reg!r}; fit it again")
        detector = cls(model, score=cast("ScoreKind", score), reg=reg, device=device)
        d = stored.n_features
        classes = stored.tensor("classes", None)
        if classes.dtype.kind not in "iu":
            raise ModelError(f"the {KIND} model's classes are not whole numbers; fit it again")
        detector.classes_ = classes.astype(np.int64)
        k = len(detector.classes_)
        detector.weights_ = stored.float64_tensor("weights", k)
        detector.means_ = stored.float64_tensor("means", k, d)
        detector.covariances_ = stored.float64_tensor("covariances", k, d, d)
        detector.feature_names_ = stored.feature_names
        detector.reference_energies_ = stored.reference_energies
        detector.profile_ = stored.profile
        detector.derivation_ = stored.derivation
        detector.training_ = dict(stored.training)
        factors = stored.float64_tensor("factors", k, d, d)
        sums_to_one = k > 0 and (detector.weights_ > 0).all() and abs(detector.weights_.sum() - 1) < 1e-6
        if not sums_to_one or not are_lower_triangular(factors):
            raise ModelError(f"the {KIND} model's weights or Cholesky factors are invalid; fit it again")
        detector._set_factors(factors)
        return detector

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, model: Callable[[Any], Any] | None = None) -> Self:
        """Load the detector at `path`."""
        return cls.from_artefact(files.load(path, kind=KIND), model=model)

    def _set_factors(self, factors: F64) -> None:
        self.factors_ = factors
        log_det = 2 * np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
        constant = np.log(self.weights_) - 0.5 * (len(self.means_[0]) * LOG_2PI + log_det)
        self._log_constant = torch.from_numpy(constant).to(self.device)
        self._metrics = {}
        self._explainer = None

    def _score_block(self, block: FloatArray) -> FloatArray:
        rows = torch.from_numpy(block).to(self.device)
        metric = self._metrics.get(rows.dtype)
        if metric is None:
            means, factors = (torch.from_numpy(a).to(self.device) for a in (self.means_, self.factors_))
            metric = self._metrics[rows.dtype] = make_metric(means, factors, rows.dtype)
        squared = metric.squared_distances(rows)
        if self.score == "mahalanobis":
            values = squared.amin(1) / self.n_features
        else:
            values = -torch.logsumexp(self._log_constant - 0.5 * squared, dim=1)
        largest = float(_MAX_FLOAT[block.dtype])
        return cast("FloatArray", values.clamp(-largest, largest).cpu().numpy().astype(block.dtype))

    def _apply_model(self, batch: Any) -> Any:
        return apply_feature_model(_OWNER, self.model, batch)

    def _check_fitted(self) -> None:
        if not hasattr(self, "factors_"):
            raise make_not_fitted_error(_OWNER, "call fit(loader) or fit_features(z, labels), or load one first")


def _iter_labelled_batches(loader: Iterable[Any]) -> Iterable[tuple[Any, Any]]:
    try:
        batches = iter(loader)
    except TypeError as error:
        raise ModelError(f"{_OWNER}: {type(loader).__name__} is not a data loader of (batch, labels)") from error
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) < 2:
            raise ModelError(
                f"{_OWNER}: the data loader must yield (batch, labels); it yields a {type(batch).__name__}"
            )
        yield batch[0], batch[1]
