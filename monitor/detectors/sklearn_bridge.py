"""Detectors: mixtures to and from scikit-learn, which is imported only when it is asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from config.errors import ModelError

if TYPE_CHECKING:
    from monitor.detectors.gaussian_mixture import GaussianMixture

M = TypeVar("M", bound="GaussianMixture")


def from_sklearn(cls: "type[M]", mixture: Any, device: str) -> "M":
    """Return our mixture with the parameters of scikit-learn's."""
    if not isinstance(mixture, _import_sklearn("sklearn.mixture").GaussianMixture):
        # A Bayesian mixture scores by its posterior, not by the density of its parameters.
        raise ModelError(f"from_sklearn takes a fitted sklearn.mixture.GaussianMixture, not {type(mixture).__name__}")
    if not hasattr(mixture, "precisions_cholesky_"):
        raise ModelError("the scikit-learn mixture is not fitted yet; call its fit(x) first")
    names = getattr(mixture, "feature_names_in_", None)
    model = cls.from_parameters(
        mixture.weights_ / mixture.weights_.sum(dtype=np.float64),
        mixture.means_,
        mixture.covariances_,
        covariance_type=mixture.covariance_type,
        feature_names=None if names is None else tuple(str(name) for name in names),
        device=device,
    )
    model.converged_ = bool(mixture.converged_)
    model.n_iter_ = int(mixture.n_iter_)
    model.lower_bound_ = float(mixture.lower_bound_)
    return model


def to_sklearn(model: "GaussianMixture") -> Any:
    """Return a fitted scikit-learn mixture with the parameters of ours."""
    mixture = _import_sklearn("sklearn.mixture").GaussianMixture(
        n_components=len(model.weights_),
        covariance_type=model.covariance_type,
        tol=model.tol,
        max_iter=model.max_iter,
        reg_covar=model.reg_covar,
        random_state=model.random_state,
    )
    covariances = model.covariances_
    mixture.weights_, mixture.means_ = model.weights_.copy(), model.means_.copy()
    mixture.covariances_ = covariances
    if model.covariance_type in ("diag", "spherical"):
        mixture.precisions_cholesky_ = 1.0 / np.sqrt(covariances)
        mixture.precisions_ = 1.0 / covariances
    else:
        inverse = model.inverse_cholesky()
        upper = np.swapaxes(inverse[0] if model.covariance_type == "tied" else inverse, -1, -2)
        mixture.precisions_cholesky_ = upper
        mixture.precisions_ = upper @ np.swapaxes(upper, -1, -2)
    mixture.converged_, mixture.n_iter_ = model.converged_, model.n_iter_
    mixture.lower_bound_ = model.lower_bound_
    mixture.n_features_in_ = model.n_features_in_
    if model.feature_names_ is not None:
        mixture.feature_names_in_ = np.array(model.feature_names_, dtype=object)
    return mixture


def make_tags() -> Any:
    """Return what scikit-learn's checks want to know about the class."""
    utils = _import_sklearn("sklearn.utils")
    return utils.Tags(
        estimator_type="density_estimator",
        target_tags=utils.TargetTags(required=False),
        transformer_tags=None,
        classifier_tags=None,
        regressor_tags=None,
        input_tags=utils.InputTags(),
    )


def _import_sklearn(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as reason:
        raise ModelError("scikit-learn is not installed; pip install scikit-learn") from reason
