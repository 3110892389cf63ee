"""Detectors: a fitted Gaussian mixture as plain values to store, and back."""

import inspect
from dataclasses import asdict
from numbers import Integral
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from config.errors import ModelError
from monitor.detectors.artefact import Artefact
from monitor.detectors.fit import mixture_fit as fitting
from monitor.detectors.fit.settings import make_fit_settings
from monitor.detectors.inputs.arguments import check_int, check_number
from monitor.detectors.mixture_values import MixtureValues, are_lower_triangular

if TYPE_CHECKING:
    from monitor.detectors.gaussian_mixture import GaussianMixture

M = TypeVar("M", bound="GaussianMixture")

_MIN_DEVIATION = 1e-150  # the square of less has no number in float64


def mixture_to_artefact(model: "GaussianMixture") -> Artefact:
    """Return a fitted mixture as plain values."""
    report = model.report_
    training = {
        "converged": model.converged_,
        "n_iter": model.n_iter_,
        "lower_bound": model.lower_bound_,
        "report": None if report is None else asdict(report),
    }
    values = model.values()
    settings = {name: value for name, value in model.get_params().items() if name != "device"}
    if not isinstance(model.random_state, Integral):
        settings["random_state"] = None  # a generator has no value to store
    return Artefact(
        kind=model.kind,
        n_features=model.n_features_in_,
        feature_names=model.feature_names_,
        settings=settings,
        training=training,
        tensors={"weights": values.weights, "means": values.means, "cholesky": values.cholesky},
        reference_energies=model.reference_energies_,
        profile=model.profile_,
    )


def mixture_from_artefact(cls: "type[M]", stored: Artefact, device: str) -> "M":
    """Return the mixture that an artefact holds."""
    known = inspect.signature(cls).parameters
    settings = {name: value for name, value in stored.settings.items() if name in known}
    model = cls(**{**settings, "device": device})
    make_fit_settings(model)
    model.set_values(_read_values(stored, model), stored.feature_names)
    training = stored.training
    model.converged_ = bool(training.get("converged", True))
    model.n_iter_ = check_int("the stored model", "n_iter", training.get("n_iter", 0), 0)
    model.lower_bound_ = check_number("the stored model", "lower_bound", training.get("lower_bound", 0.0))
    report = training.get("report")
    model.report_ = None if report is None else fitting.read_report(report)
    model.reference_energies_ = stored.reference_energies
    model.profile_ = stored.profile
    return model


def _read_values(stored: Artefact, model: "GaussianMixture") -> MixtureValues:
    d = stored.n_features
    weights = stored.float64_tensor("weights", None)
    k = len(weights)
    shape = {"full": (k, d, d), "tied": (1, d, d), "diag": (k, d), "spherical": (k, d)}
    cholesky = stored.float64_tensor("cholesky", *shape[model.covariance_type])
    deviations = np.diagonal(cholesky, axis1=1, axis2=2) if cholesky.ndim == 3 else cholesky
    shares = (weights >= 0).all() and abs(weights.sum() - 1) < 1e-6
    triangular = cholesky.ndim == 2 or are_lower_triangular(cholesky)
    if not shares or not triangular or not (deviations > _MIN_DEVIATION).all():
        raise ModelError("the gaussian_mixture model's weights or factors make no mixture; fit it again")
    return MixtureValues(weights=weights, means=stored.float64_tensor("means", k, d), cholesky=cholesky)
