"""Conversion to and from scikit-learn's GaussianMixture; scikit-learn is imported on first use."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.errors import ModelError
from monitor.detectors.mixture_values import MixtureState, check_mixture, covariances_from_cholesky


def from_sklearn(mixture: Any) -> MixtureState:
    """Return the state of a scikit-learn mixture that was fitted or whose parameters were set by hand.

    Raises:
        ModelError: It is another class, has no parameters, or has a covariance that is not positive definite.
    """
    if not isinstance(mixture, _import_sklearn("sklearn.mixture").GaussianMixture):
        # A Bayesian mixture scores by its posterior, not by the density of its parameters.
        raise ModelError(f"from_sklearn takes a fitted sklearn.mixture.GaussianMixture, not {type(mixture).__name__}")
    missing = [name for name in ("weights_", "means_", "covariances_") if not hasattr(mixture, name)]
    if missing:
        raise ModelError(
            f"the scikit-learn mixture has no {', '.join(missing)}; call its fit(x) first, or set the parameters"
        )
    names = getattr(mixture, "feature_names_in_", None)
    feature_names = None if names is None else tuple(str(name) for name in names)
    values = check_mixture(
        _normalise_weights(mixture.weights_),
        mixture.means_,
        mixture.covariances_,
        mixture.covariance_type,
        feature_names,
    )
    return MixtureState(
        values=values,
        covariance_type=mixture.covariance_type,
        feature_names=feature_names,
        # A mixture whose parameters were set by hand has no report of a fit.
        converged=bool(getattr(mixture, "converged_", True)),
        n_iter=int(getattr(mixture, "n_iter_", 0)),
        lower_bound=float(getattr(mixture, "lower_bound_", 0.0)),
    )


def _normalise_weights(weights: Any) -> NDArray[np.float64]:
    """Return weights that sum to 1; weights without a positive sum are left for the check of the mixture."""
    values = np.asarray(weights, np.float64)
    total = values.sum()
    return values / total if np.isfinite(total) and total > 0 else values


def to_sklearn(state: MixtureState, inverse_cholesky: NDArray[np.float64], parameters: Mapping[str, Any]) -> Any:
    """Return a fitted scikit-learn mixture.

    Args:
        state: The state of the mixture.
        inverse_cholesky: The inverse Cholesky factors, (K, D, D).
        parameters: The constructor arguments; tol, max_iter, reg_covar and random_state are passed on.
    """
    values = state.values
    mixture = _import_sklearn("sklearn.mixture").GaussianMixture(
        n_components=len(values.weights),
        covariance_type=state.covariance_type,
        **{name: parameters[name] for name in ("tol", "max_iter", "reg_covar", "random_state")},
    )
    covariances = covariances_from_cholesky(values.cholesky, state.covariance_type)
    mixture.weights_, mixture.means_ = values.weights.copy(), values.means.copy()
    mixture.covariances_ = covariances
    if state.covariance_type in ("diag", "spherical"):
        mixture.precisions_cholesky_ = 1.0 / np.sqrt(covariances)
        mixture.precisions_ = 1.0 / covariances
    else:
        upper = np.swapaxes(inverse_cholesky[0] if state.covariance_type == "tied" else inverse_cholesky, -1, -2)
        mixture.precisions_cholesky_ = upper
        mixture.precisions_ = upper @ np.swapaxes(upper, -1, -2)
    mixture.converged_, mixture.n_iter_, mixture.lower_bound_ = state.converged, state.n_iter, state.lower_bound
    mixture.n_features_in_ = values.means.shape[1]
    if state.feature_names is not None:
        mixture.feature_names_in_ = np.array(state.feature_names, dtype=object)
    return mixture


def make_tags() -> Any:
    """Return the tags of the estimator class for scikit-learn's checks."""
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
    except ImportError as error:
        raise ModelError("scikit-learn is not installed; run pip install scikit-learn") from error
