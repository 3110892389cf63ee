"""Settings of a Gaussian mixture's fit, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from config.errors import ModelError
from monitor.detectors.inputs.arguments import check_device, check_int, check_number
from monitor.detectors.mixture_values import CovarianceType, check_covariance_type


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """The user's settings of a fit; GaussianMixture documents them.

    `n_components` is None for "auto".
    """

    n_components: int | None
    covariance_type: CovarianceType
    tol: float
    max_iter: int
    n_init: int
    reg_covar: float
    shrinkage: float | None
    contamination: float
    seed: int


def make_fit_settings(owner: str, parameters: Mapping[str, Any]) -> FitSettings:
    """Check a mixture's constructor arguments and return the settings of its fit.

    Args:
        owner: The class name of the mixture, for error messages.
        parameters: The constructor arguments by name.

    Raises:
        ModelError: An argument has the wrong type or is out of range.
    """
    n_components, contamination = parameters["n_components"], parameters["contamination"]
    reg_covar, shrinkage, seed = parameters["reg_covar"], parameters["shrinkage"], parameters["random_state"]
    auto = n_components == "auto"
    if not auto and (not isinstance(n_components, int | np.integer) or n_components < 1):
        raise ModelError(f'n_components must be a positive whole number or "auto", not {n_components!r}')
    check_covariance_type(parameters["covariance_type"])
    if not 0 <= check_number(owner, "contamination", contamination) < 0.5:
        raise ModelError(f"contamination must lie in [0, 0.5), not {contamination!r}")
    if not check_number(owner, "reg_covar", reg_covar) > 0:
        raise ModelError(f"reg_covar must be positive, not {reg_covar!r}; without it a constant column has no density")
    if shrinkage is not None:
        check_number(owner, "shrinkage", shrinkage, low=0.0)
    check_number(owner, "tol", parameters["tol"], low=0.0)
    check_int(owner, "n_init", parameters["n_init"], 1)
    check_int(owner, "max_iter", parameters["max_iter"], 1)
    if isinstance(seed, int | float | str):
        check_int(owner, "random_state", seed, 0)
    check_device(owner, parameters["device"])
    return FitSettings(
        n_components=None if auto else n_components,
        covariance_type=parameters["covariance_type"],
        tol=parameters["tol"],
        max_iter=parameters["max_iter"],
        n_init=parameters["n_init"],
        reg_covar=reg_covar,
        shrinkage=shrinkage,
        contamination=contamination,
        seed=seed,
    )
