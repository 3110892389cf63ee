"""Gaussian mixture fitted by EM, with the interface of scikit-learn's GaussianMixture."""

import inspect
import os
from collections.abc import Callable
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from config.errors import ModelError
from monitor.detectors import artefact, mixture_artefact, sklearn_bridge
from monitor.detectors.artefact import Artefact
from monitor.detectors.derivation import ATTRIBUTE, Derivation
from monitor.detectors.explain import attribution
from monitor.detectors.explain.components import name_components
from monitor.detectors.explain.derived import sources_of
from monitor.detectors.explain.explanation import Explanation
from monitor.detectors.explain.mixture_explainer import MixtureExplainer, make_explainer, typical_contributions
from monitor.detectors.explain.prefixes import make_prefix_factors
from monitor.detectors.fit import selection
from monitor.detectors.fit.cross_fitting import reference_energies
from monitor.detectors.fit.mixture_fit import FitReport, fit_mixture
from monitor.detectors.fit.process_group import ProcessGroup
from monitor.detectors.fit.settings import FitSettings, make_fit_settings
from monitor.detectors.inputs.arguments import check_device, make_not_fitted_error
from monitor.detectors.inputs.checks import FloatArray, check_events, check_finite, check_sample_weights
from monitor.detectors.mixture_values import (
    CovarianceType,
    MixtureState,
    MixtureValues,
    check_mixture,
    covariances_from_cholesky,
    expand_cholesky,
)
from monitor.detectors.score.factors import GaussianComponents
from monitor.detectors.score.scorer import MixtureScorer, make_scorer
from monitor.detectors.score.threads import single_torch_thread
from monitor.statistics.training_profile import FeatureProfile, build_feature_profile

F64 = NDArray[np.float64]

# Smaller arrays are fitted on one thread: with several, threads wait for each other longer than they compute.
# A fit of 10,000 x 4 took 7.7 s on two busy cores, and 0.07 s on one thread.
_SMALL_FIT_ELEMENTS = 2_000_000


class GaussianMixture:
    """Mixture of Gaussians; the energy of an event is -log p(x) in nats, and larger for outliers.

    Methods with an argument `x` take events (n, D): a numpy array, a torch tensor or a data frame. After the fit they
    raise ModelError if the events are not finite numbers or do not have the columns of the training events. Before it
    they raise NotFittedError, which is a ModelError.

    Args:
        n_components: The number of components. "auto" takes the smallest of 1 to 8 that reaches most of the possible
            gain in held-out log-likelihood.
        covariance_type: full, tied, diag or spherical.
        tol: EM stops when the mean log-likelihood changes by less than this.
        max_iter: The maximum number of passes over all rows.
        n_init: The number of initialisations; the best one is used.
        reg_covar: The ridge that is added to every variance, with three bounds per column. It is at most `reg_covar`
            times the squared maximum deviation from the mean, at most 100 `reg_covar` times the variance, and at
            least 0.01 `reg_covar` times the variance, or 0.01 times that of its groups in a column of tight groups far
            apart.
        shrinkage: The number of pseudo-observations with the covariance of all events that each component gets. None
            takes the number with the best held-out log-likelihood (none if that makes no difference). With None,
            several components and full covariances, each component also gets one pseudo-observation per column, at
            most ten, with the components' average covariance. With an explicit `n_components`, this second number
            is reduced, down to zero, where held-out likelihood prefers it.
        contamination: The fraction of training events that is assumed to be anomalous. In every pass the events with
            the largest energies, this fraction of all, are left out (trimmed EM).
        random_state: The seed.
        device: The device that computes energies: "cpu" or a torch CUDA device.

    Attributes:
        weights_: The components' weights, (K,).
        means_: The means, (K, D).
        covariances_: The covariances, (K, D, D), (D, D), (K, D) or (K,) depending on the covariance type.
        converged_: True if EM reached `tol`.
        n_iter_: The number of passes over all rows.
        lower_bound_: The last mean log-likelihood, in the units of the columns.
        report_: The fit report, or None if the parameters were not fitted here.
        reference_energies_: Sorted out-of-fold energies of the training events, set by `calibrate`.
        typical_contributions_: The mean contribution of each feature to the energy of a typical training event, (D,),
            set by `calibrate`.
        profile_: The training profile of each feature for drift detection, set by `calibrate`.
        derivation_: The derived features among the columns, for events of `monitor.detectors.derive`; else None.
    """

    kind = mixture_artefact.KIND
    reference_energies_: NDArray[np.float32] | None
    profile_: FeatureProfile | None
    typical_contributions_: F64 | None
    derivation_: Derivation | None
    _explainer: MixtureExplainer | None

    def __init__(
        self,
        n_components: int | Literal["auto"] = 1,
        *,
        covariance_type: CovarianceType = "full",
        tol: float = 1e-3,
        max_iter: int = 100,
        n_init: int = 4,
        reg_covar: float = 1e-6,
        shrinkage: float | None = None,
        contamination: float = 0.0,
        random_state: int = 0,
        device: str = "cpu",
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.reg_covar = reg_covar
        self.shrinkage = shrinkage
        self.contamination = contamination
        self.random_state = random_state
        self.device = device

    def fit(
        self,
        x: Any,
        y: object = None,
        sample_weight: object = None,
        progress: Callable[[int, float], None] | None = None,
    ) -> Self:
        """Fit on events. Under torchrun every process passes its own rows, and all get the same mixture.

        Args:
            x: Events: a numpy array, a torch tensor or a data frame. Column names are stored.
            y: Ignored; present for scikit-learn's pipelines.
            sample_weight: One weight per event. Whole numbers are counts of the event; other numbers are relative.
            progress: Called after every pass over all rows with its number and the mean log-likelihood.

        Raises:
            ModelError: The events or the settings are invalid.
        """
        del y
        owner, settings = type(self).__name__, self._fit_settings()
        events = check_events(x, owner=owner, min_rows=settings.n_components or 1, squares=True)
        weights = None
        if sample_weight is not None:
            weights = check_sample_weights(sample_weight, len(events.values), owner=owner)
        with single_torch_thread(when=events.values.size < _SMALL_FIT_ELEMENTS):
            fitted = fit_mixture(events.values, weights, settings, ProcessGroup.current(), progress)
        state = MixtureState(
            values=fitted.to_values(self.covariance_type),
            covariance_type=self.covariance_type,
            feature_names=events.names,
            converged=fitted.converged,
            n_iter=fitted.n_iter,
            lower_bound=fitted.report.log_likelihood[-1] - float(np.log(fitted.scaling.scale).sum()),
        )
        self._set_state(state, fitted.report)
        derivation = getattr(x, "attrs", {}).get(ATTRIBUTE)
        self.derivation_ = derivation if derivation is not None and derivation.names == events.names else None
        return self

    def calibrate(self, x: Any, folds: int = 5) -> Self:
        """Set the reference energies, the training profile and the typical contributions from the training events.

        Each event's reference energy is that under a model fitted without the event's fold.
        """
        values = self._check_events(x)
        self.reference_energies_ = reference_energies(lambda: type(self)(**self.get_params()), values, folds)
        self.profile_ = build_feature_profile(values)
        self.typical_contributions_ = typical_contributions(values, make_prefix_factors(*self._components()))
        self._explainer = None
        return self

    def energy(self, x: Any) -> FloatArray:
        """Return the energy of each event, -log p(x) in nats, (n,); float32 for float32 events.

        An event's energy is bit-identical in every batch.
        """
        return self._score(x, with_responsibilities=False)[0]

    def energies_and_responsibilities(self, x: Any) -> tuple[FloatArray, FloatArray]:
        """Return the energy of each event, (n,), and the components' responsibilities, (n, K), in one pass.

        Both have the precision of the events and are bit-identical in every batch.
        """
        return self._score(x, with_responsibilities=True)

    def score_samples(self, x: Any) -> FloatArray:
        """Return log p(x) of each event in nats, (n,)."""
        return -self.energy(x)

    def score(self, x: Any, y: object = None) -> float:
        """Return the mean log-likelihood of the events, in nats."""
        del y
        return float(self.score_samples(x).mean(dtype=np.float64))

    def responsibilities(self, x: Any) -> F64:
        """Return the responsibility of each component for each event, (n, K)."""
        log_joint = self._log_joint(x)
        unnormalised = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
        shares: F64 = unnormalised / unnormalised.sum(axis=1, keepdims=True)
        return shares

    def predict_proba(self, x: Any) -> F64:
        """Return `responsibilities(x)`, under scikit-learn's name."""
        return self.responsibilities(x)

    def predict(self, x: Any) -> NDArray[np.int64]:
        """Return the index of the component with the largest responsibility for each event, (n,)."""
        labels: NDArray[np.int64] = self._log_joint(x).argmax(axis=1)
        return labels

    def fit_predict(self, x: Any, y: object = None) -> NDArray[np.int64]:
        """Fit, and return `predict(x)`, (n,)."""
        return self.fit(x, y).predict(x)

    def explain(self, x: Any) -> Explanation:
        """Return the contribution of each feature to each energy. All arrays are (n, D).

        The contributions of an event sum to its energy minus that of a typical event. They are computed in float64.
        """
        values = self._check_events(x, squares=True).astype(np.float64)
        if self._explainer is None:
            self._explainer = make_explainer(
                *self._components(),
                features=self.feature_names_ or tuple(f"x{j}" for j in range(self.n_features)),
                profile=self.profile_,
                typical=self.typical_contributions_,
                derived=sources_of(self.derivation_),
            )
        return self._explainer.explain(values)

    def name_components(self) -> tuple[str, ...]:
        """Return a name for each component by its centre, such as "near amount 20, hour 3"; the names are distinct."""
        weights, means, lower, _ = self._components()
        features = self.feature_names_ or tuple(f"x{j}" for j in range(self.n_features))
        n_fields = len(features if self.derivation_ is None else self.derivation_.fields)
        variances = np.square(lower).sum(axis=2)
        return name_components(weights, means[:, :n_fields], variances[:, :n_fields], features[:n_fields])

    def sample(self, n_samples: int = 1) -> tuple[F64, NDArray[np.int64]]:
        """Draw events from the mixture; return them, (n_samples, D), and the index of the component of each.

        Equal values of `random_state` give equal events.

        Raises:
            ModelError: `n_samples` is not a positive integer, or the mixture is not fitted.
        """
        self._check_fitted()
        if not isinstance(n_samples, int | np.integer) or n_samples < 1:
            raise ModelError(f"Invalid value for 'n_samples': {n_samples}; draw at least one event")
        rng = np.random.default_rng(self.random_state)
        labels = np.repeat(np.arange(len(self.weights_)), rng.multinomial(n_samples, self.weights_))
        noise = rng.standard_normal((n_samples, self.n_features))
        lower = expand_cholesky(self._cholesky, len(self.weights_))
        events = self.means_[labels] + np.einsum("nij,nj->ni", lower[labels], noise)
        return events, labels

    def bic(self, x: Any) -> float:
        """Return Schwarz's information criterion on the events; smaller is better."""
        values = self._check_events(x)
        return selection.bic(self.score(values) * len(values), self._n_parameters(), len(values))

    def aic(self, x: Any) -> float:
        """Return Akaike's information criterion on the events; smaller is better."""
        values = self._check_events(x)
        return 2.0 * self._n_parameters() - 2.0 * self.score(values) * len(values)

    @property
    def n_features(self) -> int:
        """The number of columns of the training events, D."""
        self._check_fitted()
        return self.n_features_in_

    def to_artefact(self) -> Artefact:
        """Return the model as an artefact."""
        return mixture_artefact.mixture_to_artefact(
            self._state(),
            self.get_params(),
            report=self.report_,
            reference_energies=self.reference_energies_,
            profile=self.profile_,
            typical_contributions=self.typical_contributions_,
            derivation=self.derivation_,
        )

    @classmethod
    def from_artefact(cls, stored: Artefact, device: str = "cpu") -> Self:
        """Build a fitted mixture from an artefact.

        Raises:
            ModelError: The artefact's settings or arrays are not those of a mixture.
        """
        known = inspect.signature(cls).parameters
        settings = {name: value for name, value in stored.settings.items() if name in known}
        model = cls(**{**settings, "device": device})
        model._fit_settings()  # raises for invalid settings
        model._set_state(*mixture_artefact.mixture_from_artefact(stored, model.covariance_type))
        model.reference_energies_ = stored.reference_energies
        model.profile_ = stored.profile
        model.typical_contributions_ = mixture_artefact.read_typical_contributions(stored)
        model.derivation_ = stored.derivation
        return model

    @classmethod
    def from_sklearn(cls, mixture: Any, device: str = "cpu") -> Self:
        """Build a mixture from a fitted scikit-learn GaussianMixture; energies are its negated score_samples.

        Raises:
            ModelError: It is not fitted, or a covariance is not positive definite.
        """
        return cls._from_state(sklearn_bridge.from_sklearn(mixture), device)

    def to_sklearn(self) -> Any:
        """Return a fitted scikit-learn GaussianMixture of the same parameters (requires scikit-learn)."""
        return sklearn_bridge.to_sklearn(self._state(), self.inverse_cholesky(), self.get_params())

    def __sklearn_tags__(self) -> Any:
        return sklearn_bridge.make_tags()

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes to pickle, without the scorers, because their kernels depend on the machine."""
        return vars(self) | ({"_scorers": {}, "_explainer": None} if hasattr(self, "weights_") else {})

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "weights_")

    def to_bytes(self) -> bytes:
        """Return the model as the bytes of a safetensors file."""
        return artefact.to_bytes(self.to_artefact())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a safetensors file, atomically.

        Raises:
            ModelError: The mixture is not fitted, or the file cannot be written.
        """
        artefact.save(self.to_artefact(), path)

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: FBT001, FBT002 - scikit-learn's signature
        """Return the constructor's arguments."""
        del deep
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> Self:
        """Set constructor arguments by name."""
        known = inspect.signature(type(self)).parameters
        for name, value in params.items():
            if name not in known:
                raise ModelError(f"GaussianMixture has no parameter {name!r}; valid names are {', '.join(known)}")
            setattr(self, name, value)
        return self

    @classmethod
    def from_parameters(
        cls,
        weights: Any,
        means: Any,
        covariances: Any,
        *,
        covariance_type: CovarianceType = "full",
        feature_names: tuple[str, ...] | None = None,
        device: str = "cpu",
    ) -> Self:
        """Build a mixture from given parameters, of the shapes of `weights_`, `means_` and `covariances_`.

        Raises:
            ModelError: The shapes do not match, or a covariance is not positive definite.
        """
        values = check_mixture(weights, means, covariances, covariance_type, feature_names)
        state = MixtureState(values=values, covariance_type=covariance_type, feature_names=feature_names)
        return cls._from_state(state, device)

    @classmethod
    def _from_state(cls, state: MixtureState, device: str) -> Self:
        model = cls(n_components=len(state.values.weights), covariance_type=state.covariance_type, device=device)
        check_device(cls.__name__, device)
        model._set_state(state, None)
        return model

    def _state(self) -> MixtureState:
        self._check_fitted()
        return MixtureState(
            values=MixtureValues(weights=self.weights_, means=self.means_, cholesky=self._cholesky),
            covariance_type=self.covariance_type,
            feature_names=self.feature_names_,
            converged=self.converged_,
            n_iter=self.n_iter_,
            lower_bound=self.lower_bound_,
        )

    def _set_state(self, state: MixtureState, report: FitReport | None) -> None:
        """Replace the fitted parameters, and discard the reference energies and the training profile."""
        values, names = state.values, state.feature_names
        self.weights_, self.means_, self._cholesky = values.weights, values.means, values.cholesky
        self.covariances_ = covariances_from_cholesky(values.cholesky, self.covariance_type)
        self.converged_, self.n_iter_, self.lower_bound_ = state.converged, state.n_iter, state.lower_bound
        self.report_ = report
        self._scorers: dict[np.dtype[Any], MixtureScorer] = {}
        self._explainer = None
        self.reference_energies_ = None
        self.profile_ = None
        self.typical_contributions_ = None
        self.derivation_ = None
        self.n_features_in_: int = values.means.shape[1]
        self.feature_names_: tuple[str, ...] | None = names
        if names is not None:
            self.feature_names_in_ = np.array(names, dtype=object)

    def inverse_cholesky(self) -> F64:
        """Return the inverse lower Cholesky factors, (K, D, D) for every covariance type."""
        lower = torch.from_numpy(expand_cholesky(self._cholesky, len(self.weights_)))
        eye = torch.eye(lower.shape[1], dtype=torch.float64).expand_as(lower)
        with single_torch_thread():
            inverse: F64 = torch.linalg.solve_triangular(lower, eye, upper=False).numpy()
        return inverse

    def _components(self) -> tuple[F64, F64, F64, F64]:
        """Return weights (K,), means (K, D), lower Cholesky factors and their inverses, (K, D, D)."""
        return (
            self.weights_,
            self.means_,
            expand_cholesky(self._cholesky, len(self.weights_)),
            self.inverse_cholesky(),
        )

    def _score(self, x: Any, *, with_responsibilities: bool) -> tuple[FloatArray, FloatArray]:
        """Return energies (n,) and responsibilities (n, K); the second array is empty unless asked for."""
        values = self._check_events(x, finite=False)
        shares = np.empty((len(values), len(self.weights_)) if with_responsibilities else 0, dtype=values.dtype)
        energies = self._get_scorer(values.dtype).energies(values, shares if with_responsibilities else None)
        if not np.isfinite(energies).all():
            check_finite(values, owner=type(self).__name__, names=self.feature_names_)
        return energies, shares

    def _get_scorer(self, dtype: np.dtype[Any]) -> MixtureScorer:
        if dtype not in self._scorers:
            inverse: F64 = 1.0 / self._cholesky if self._cholesky.ndim == 2 else self.inverse_cholesky()
            if self.covariance_type == "tied":
                inverse = inverse[:1]
            mixture = GaussianComponents(weights=self.weights_, means=self.means_, inverse=inverse)
            self._scorers[dtype] = make_scorer(mixture, dtype.type, self.device)
        return self._scorers[dtype]

    def _log_joint(self, x: Any) -> F64:
        return attribution.log_joint(self._check_events(x), self.weights_, self.means_, self.inverse_cholesky())

    def _n_parameters(self) -> int:
        return selection.count_parameters(len(self.weights_), self.n_features_in_, self.covariance_type)

    def _fit_settings(self) -> FitSettings:
        return make_fit_settings(type(self).__name__, self.get_params())

    def _check_events(self, x: Any, *, finite: bool = True, squares: bool = False) -> FloatArray:
        self._check_fitted()
        return check_events(
            x,
            owner=type(self).__name__,
            n_features=self.n_features_in_,
            names=self.feature_names_,
            finite=finite,
            squares=squares,
        ).values

    def _check_fitted(self) -> None:
        if not hasattr(self, "weights_"):
            raise make_not_fitted_error(type(self).__name__)
