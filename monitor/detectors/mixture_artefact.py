"""Conversion between the state of a fitted Gaussian mixture and an artefact."""

from collections.abc import Mapping
from dataclasses import asdict
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.errors import ModelError
from monitor.detectors.artefact import Artefact
from monitor.detectors.derivation import Derivation
from monitor.detectors.fit.mixture_fit import FitReport, read_report
from monitor.detectors.inputs.arguments import check_int, check_number
from monitor.detectors.mixture_values import CovarianceType, MixtureState, MixtureValues, are_lower_triangular
from monitor.statistics.training_profile import FeatureProfile

KIND = "gaussian_mixture"
_TYPICAL_KEY = "typical_contributions"
_MIN_DEVIATION = 1e-150  # the square of a smaller number underflows in float64


def mixture_to_artefact(
    state: MixtureState,
    parameters: Mapping[str, Any],
    *,
    report: FitReport | None,
    reference_energies: NDArray[np.float32] | None,
    profile: FeatureProfile | None,
    typical_contributions: NDArray[np.float64] | None,
    derivation: Derivation | None,
) -> Artefact:
    """Return the artefact of a fitted mixture; `parameters` are its constructor arguments."""
    settings = {name: value for name, value in parameters.items() if name != "device"}
    if not isinstance(settings["random_state"], Integral):
        settings["random_state"] = None  # a random generator cannot be stored
    values = state.values
    tensors = {"weights": values.weights, "means": values.means, "cholesky": values.cholesky}
    if typical_contributions is not None:
        tensors[_TYPICAL_KEY] = typical_contributions
    return Artefact(
        kind=KIND,
        n_features=values.means.shape[1],
        feature_names=state.feature_names,
        settings=settings,
        training={
            "converged": state.converged,
            "n_iter": state.n_iter,
            "lower_bound": state.lower_bound,
            "report": None if report is None else asdict(report),
        },
        tensors=tensors,
        reference_energies=reference_energies,
        profile=profile,
        derivation=derivation,
    )


def mixture_from_artefact(stored: Artefact, covariance_type: CovarianceType) -> tuple[MixtureState, FitReport | None]:
    """Return the state and the fit report in an artefact.

    Raises:
        ModelError: The arrays are not those of a mixture, or the training summary is invalid.
    """
    values = _read_values(stored, covariance_type)
    training = stored.training
    state = MixtureState(
        values=values,
        covariance_type=covariance_type,
        feature_names=stored.feature_names,
        converged=bool(training.get("converged", True)),
        n_iter=check_int("the stored model", "n_iter", training.get("n_iter", 0), 0),
        lower_bound=check_number("the stored model", "lower_bound", training.get("lower_bound", 0.0)),
    )
    report = training.get("report")
    return state, None if report is None else read_report(report)


def read_typical_contributions(stored: Artefact) -> NDArray[np.float64] | None:
    """Return the mean contributions of a typical event, (D,); None if the model was stored without them.

    Raises:
        ModelError: The array has another shape or is not finite.
    """
    return stored.float64_tensor(_TYPICAL_KEY, stored.n_features) if _TYPICAL_KEY in stored.tensors else None


def _read_values(stored: Artefact, covariance_type: CovarianceType) -> MixtureValues:
    d = stored.n_features
    weights = stored.float64_tensor("weights", None)
    k = len(weights)
    shapes = {"full": (k, d, d), "tied": (1, d, d), "diag": (k, d), "spherical": (k, d)}
    cholesky = stored.float64_tensor("cholesky", *shapes[covariance_type])
    deviations = np.diagonal(cholesky, axis1=1, axis2=2) if cholesky.ndim == 3 else cholesky
    sums_to_one = (weights >= 0).all() and abs(weights.sum() - 1) < 1e-6
    triangular = cholesky.ndim == 2 or are_lower_triangular(cholesky)
    if not sums_to_one or not triangular or not (deviations > _MIN_DEVIATION).all():
        raise ModelError(f"the {KIND} model's weights or Cholesky factors are invalid; fit it again")
    return MixtureValues(weights=weights, means=stored.float64_tensor("means", k, d), cholesky=cholesky)
