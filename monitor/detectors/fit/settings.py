"""Detectors: what the settings of a Gaussian mixture may be."""

from typing import TYPE_CHECKING

import numpy as np

from config.errors import ModelError
from monitor.detectors.fit.iterations import FitSettings
from monitor.detectors.inputs.arguments import check_device, check_int, check_number

if TYPE_CHECKING:
    from monitor.detectors.gaussian_mixture import GaussianMixture

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")


def make_fit_settings(model: "GaussianMixture") -> FitSettings:
    """Return the plan of a mixture's fit.

    Raises:
        ModelError: a setting makes no sense.
    """
    owner = type(model).__name__
    auto = model.n_components == "auto"
    if not auto and (not isinstance(model.n_components, int | np.integer) or model.n_components < 1):
        raise ModelError(f'n_components must be a positive whole number or "auto", not {model.n_components!r}')
    check_covariance_type(model.covariance_type)
    if not 0 <= check_number(owner, "contamination", model.contamination) < 0.5:
        raise ModelError(f"contamination must lie in [0, 0.5), not {model.contamination!r}")
    if not check_number(owner, "reg_covar", model.reg_covar) > 0:
        raise ModelError(
            f"reg_covar must be positive, not {model.reg_covar!r}; without it a constant column has no density"
        )
    if model.shrinkage is not None:
        check_number(owner, "shrinkage", model.shrinkage, low=0.0)
    check_number(owner, "tol", model.tol, low=0.0)
    check_int(owner, "n_init", model.n_init, 1)
    check_int(owner, "max_iter", model.max_iter, 1)
    if isinstance(model.random_state, int | float | str):
        check_int(owner, "random_state", model.random_state, 0)
    check_device(owner, model.device)
    return FitSettings(
        n_components=None if model.n_components == "auto" else model.n_components,
        covariance_type=model.covariance_type,
        tol=model.tol,
        max_iter=model.max_iter,
        n_init=model.n_init,
        reg_covar=model.reg_covar,
        shrinkage=model.shrinkage,
        contamination=model.contamination,
        seed=model.random_state,
    )


def check_covariance_type(kind: object) -> None:
    """Refuse what is no form of covariances."""
    if kind not in COVARIANCE_TYPES:
        raise ModelError(f"covariance_type must be one of {', '.join(COVARIANCE_TYPES)}, not {kind!r}")
