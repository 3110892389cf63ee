"""Detectors: the Gaussian mixture, fitted by EM, with the names that scikit-learn's users know."""

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
from monitor.detectors.explain import attribution
from monitor.detectors.explain.explanation import Explanation
from monitor.detectors.fit import mixture_fit as fitting
from monitor.detectors.fit import selection
from monitor.detectors.fit.cross_fitting import reference_energies
from monitor.detectors.fit.em import CovarianceType
from monitor.detectors.fit.process_group import ProcessGroup
from monitor.detectors.fit.settings import make_fit_settings
from monitor.detectors.inputs.arguments import check_device
from monitor.detectors.inputs.checks import FloatArray, check_events, check_finite, check_sample_weights
from monitor.detectors.inputs.unfitted import make_not_fitted_error
from monitor.detectors.mixture_values import MixtureValues, check_mixture, covariances_from_cholesky, expand_cholesky
from monitor.detectors.score.factors import GaussianComponents
from monitor.detectors.score.scorer import MixtureScorer, make_scorer
from monitor.detectors.score.threads import single_torch_thread
from monitor.statistics.training_profile import FeatureProfile, build_feature_profile

F64 = NDArray[np.float64]

# On small arrays threads wait for each other longer than they compute: 10,000 x 4 took 7.7 s on two busy cores, and
# 0.07 s on one thread.
_SMALL_FIT_ELEMENTS = 2_000_000


class GaussianMixture:
    """A mixture of Gaussians whose energy, -log p(x), tells how strange an event is.

    Args:
        n_components: How many, or "auto" for the fewest of 1 to 8 that reach most of what components can gain on
            rows held out.
        covariance_type: full, tied, diag or spherical.
        tol: EM stops when the mean log-likelihood moves by less than this.
        max_iter: The most passes over all rows.
        n_init: How many starts are tried; the best is kept.
        reg_covar: Added to every variance, but no more than this share of the square of the column's reach (its
            farthest value from the mean) nor than a hundred times this share of its variance, and no less than a
            hundredth of it.
        shrinkage: How many made-up rows, varying as all events do, each component is given; None for what
            serves rows held out best (none where that makes no difference), and in a mixture of several with full
            covariances one more for each column up to ten, varying as the components do on average. Of these, a
            number of components that is asked for gets fewer, or none, where they make rows held out less likely.
        contamination: The share of the training events taken to be strange: as many of the largest energies
            are left out of every pass (trimmed EM).
        random_state: The seed.
        device: Where energies are computed, "cpu" or a torch CUDA device.

    Attributes:
        weights_: (K,) shares.
        means_: (K, D).
        covariances_: (K, D, D), (D, D), (K, D) or (K,) by covariance type.
        converged_: Whether EM met `tol`.
        n_iter_: Passes over all rows.
        lower_bound_: The last mean log-likelihood, in the columns' own units.
        report_: The fit report.
        reference_energies_: Sorted energies of events that the model did not see, after `calibrate`.
        profile_: What the training values of each feature were, for the daemon's watch on drift, after `calibrate`.
    """

    kind = "gaussian_mixture"
    reference_energies_: NDArray[np.float32] | None
    profile_: FeatureProfile | None

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
        """Fit on events; under torchrun each process gives its own rows and all get the same mixture.

        Args:
            x: Events: numpy, torch or a data frame, whose names are kept.
            y: Ignored; there for scikit-learn's pipelines.
            sample_weight: One weight an event: whole numbers say how often it came, others which share it has.
            progress: Called after every pass over all rows with its number and mean log-likelihood.

        Raises:
            ModelError: unusable events or settings.
        """
        del y
        plan = make_fit_settings(self)
        fewest = 1 if self.n_components == "auto" else self.n_components
        events = check_events(x, owner=type(self).__name__, min_rows=max(fewest, 1), squares=True)
        weights = (
            None
            if sample_weight is None
            else check_sample_weights(sample_weight, len(events.values), owner=type(self).__name__)
        )
        with single_torch_thread(when=events.values.size < _SMALL_FIT_ELEMENTS):
            fitted = fitting.fit_mixture(events.values, weights, plan, ProcessGroup.current(), progress)
        self.set_values(fitted.to_values(self.covariance_type), events.names)
        self.converged_ = fitted.converged
        self.n_iter_ = fitted.n_iter
        self.lower_bound_ = fitted.report.log_likelihood[-1] - float(np.log(fitted.scaling.scale).sum())
        self.report_: fitting.FitReport | None = fitted.report
        return self

    def calibrate(self, x: Any, folds: int = 5) -> Self:
        """Set the reference energies from the training events, each scored by a fit without its fold."""
        values = self._check_events(x)
        self.reference_energies_ = reference_energies(lambda: type(self)(**self.get_params()), values, folds)
        self.profile_ = build_feature_profile(values)
        return self

    def energy(self, x: Any) -> FloatArray:
        """Return the energy of each event in nats: -log p(x), float32 for float32 events.

        The energy of an event is the same to the bit whatever it is batched with.
        """
        values = self._check_events(x, finite=False)
        energies = self._get_scorer(values.dtype).energies(values)
        if not np.isfinite(energies).all():
            check_finite(values, owner=type(self).__name__, names=self.feature_names_)
        return energies

    def energies_and_responsibilities(self, x: Any) -> tuple[FloatArray, FloatArray]:
        """Return the energy of each event, and each component's share (n, K) in it, out of one pass.

        The shares are rounded as the energies are: the same to the bit whatever an event is batched with.
        """
        values = self._check_events(x, finite=False)
        shares = np.empty((len(values), len(self.weights_)), dtype=values.dtype)
        energies = self._get_scorer(values.dtype).energies(values, shares)
        if not np.isfinite(energies).all():
            check_finite(values, owner=type(self).__name__, names=self.feature_names_)
        return energies, shares

    def score_samples(self, x: Any) -> FloatArray:
        """Return log p(x) of each event."""
        return -self.energy(x)

    def score(self, x: Any, y: object = None) -> float:
        """Return the mean log-likelihood of the events."""
        del y
        return float(self.score_samples(x).mean(dtype=np.float64))

    def responsibilities(self, x: Any) -> F64:
        """Return each component's share (n, K) in each event."""
        log_joint = self._log_joint(x)
        share = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
        total: F64 = share / share.sum(axis=1, keepdims=True)
        return total

    def predict_proba(self, x: Any) -> F64:
        """Return each component's share (n, K) in each event; scikit-learn's name."""
        return self.responsibilities(x)

    def predict(self, x: Any) -> NDArray[np.int64]:
        """Return the component with the largest share in each event."""
        place: NDArray[np.int64] = self._log_joint(x).argmax(axis=1)
        return place

    def fit_predict(self, x: Any, y: object = None) -> NDArray[np.int64]:
        """Fit, and return the component of each event."""
        return self.fit(x, y).predict(x)

    def explain(self, x: Any) -> Explanation:
        """Return by event and feature how unexpected it is given the others, and what that costs."""
        values = self._check_events(x, squares=True).astype(np.float64)
        inverse = self.inverse_cholesky()
        names = self.feature_names_ or tuple(f"x{j}" for j in range(self.n_features))
        return attribution.explain_mixture(values, self.weights_, self.means_, inverse, names)

    def sample(self, n_samples: int = 1) -> tuple[F64, NDArray[np.int64]]:
        """Return events drawn from the mixture, and their components."""
        self._check_fitted()
        if not isinstance(n_samples, int | np.integer) or n_samples < 1:
            raise ModelError(f"Invalid value for 'n_samples': {n_samples}; draw at least one event")
        rng = np.random.default_rng(self.random_state)
        place = np.repeat(np.arange(len(self.weights_)), rng.multinomial(n_samples, self.weights_))
        noise = rng.standard_normal((n_samples, self.n_features))
        lower = expand_cholesky(self._cholesky, len(self.weights_))
        drawn = self.means_[place] + np.einsum("nij,nj->ni", lower[place], noise)
        return drawn, place

    def bic(self, x: Any) -> float:
        """Return Schwarz's criterion on the events; smaller is better."""
        values = self._check_events(x)
        return selection.bic(self.score(values) * len(values), self._n_parameters(), len(values))

    def aic(self, x: Any) -> float:
        """Return Akaike's criterion on the events; smaller is better."""
        values = self._check_events(x)
        return 2.0 * self._n_parameters() - 2.0 * self.score(values) * len(values)

    @property
    def n_features(self) -> int:
        """The number of columns that it was fitted on."""
        self._check_fitted()
        return self.n_features_in_

    def to_artefact(self) -> Artefact:
        """Return the model as plain values."""
        self._check_fitted()
        return mixture_artefact.mixture_to_artefact(self)

    @classmethod
    def from_artefact(cls, stored: Artefact, device: str = "cpu") -> Self:
        """Bring back a fitted mixture.

        Raises:
            ModelError: the artefact's values do not make a mixture.
        """
        return mixture_artefact.mixture_from_artefact(cls, stored, device)

    @classmethod
    def from_sklearn(cls, mixture: Any, device: str = "cpu") -> Self:
        """Take over a fitted scikit-learn GaussianMixture; energies are its negated score_samples.

        Raises:
            ModelError: it is not fitted, or its covariances are not positive definite.
        """
        return sklearn_bridge.from_sklearn(cls, mixture, device)

    def to_sklearn(self) -> Any:
        """Return a fitted scikit-learn GaussianMixture of the same parameters (needs scikit-learn)."""
        self._check_fitted()
        return sklearn_bridge.to_sklearn(self)

    def __sklearn_tags__(self) -> Any:
        return sklearn_bridge.make_tags()

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickle takes: all but the scorers, whose kernels suit this machine."""
        return {name: {} if name == "_scorers" else value for name, value in vars(self).items()}

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "weights_")

    def to_bytes(self) -> bytes:
        """Return the model as the bytes of a safetensors file."""
        return artefact.to_bytes(self.to_artefact())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file, at once."""
        artefact.save(self.to_artefact(), path)

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: FBT001, FBT002 - scikit-learn's signature
        """Return the constructor's arguments."""
        del deep
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **params: Any) -> Self:
        """Set some of the constructor's arguments."""
        known = inspect.signature(type(self)).parameters
        for name, value in params.items():
            if name not in known:
                raise ModelError(f"GaussianMixture has no parameter {name!r}; known are {', '.join(known)}")
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
        """Return a mixture of known parameters, shaped as `weights_`, `means_` and `covariances_` are.

        Raises:
            ModelError: shapes that do not fit, or covariances that are not positive definite.
        """
        given = check_mixture(weights, means, covariances, covariance_type, feature_names)
        model = cls(n_components=len(given.weights), covariance_type=covariance_type, device=device)
        check_device(cls.__name__, device)
        model.set_values(given, feature_names)
        model.converged_, model.n_iter_, model.lower_bound_, model.report_ = True, 0, 0.0, None
        return model

    def values(self) -> MixtureValues:
        """Return the parameters of the fitted mixture, covariances as factors."""
        self._check_fitted()
        return MixtureValues(weights=self.weights_, means=self.means_, cholesky=self._cholesky)

    def set_values(self, values: MixtureValues, names: tuple[str, ...] | None) -> None:
        """Take over the parameters of a mixture; what was fitted before is forgotten."""
        self.weights_, self.means_, self._cholesky = values.weights, values.means, values.cholesky
        self.covariances_ = covariances_from_cholesky(values.cholesky, self.covariance_type)
        self._scorers: dict[np.dtype[Any], MixtureScorer] = {}
        self.reference_energies_ = None
        self.profile_ = None
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
