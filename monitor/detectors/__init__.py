"""Density models that assign an energy to every event; names are imported on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monitor.detectors.class_conditional import ClassConditionalGaussian
    from monitor.detectors.derived_frame import derive
    from monitor.detectors.detector import Detector, load_detector
    from monitor.detectors.explain.explanation import Explanation
    from monitor.detectors.fit.cross_fitting import reference_energies
    from monitor.detectors.gaussian_mixture import GaussianMixture
    from monitor.detectors.gmm_functions import gmm_energy, gmm_params
    from monitor.detectors.networks.aegmm import AEGMM
    from monitor.detectors.networks.vaegmm import VAEGMM

_MODULES = {
    "AEGMM": "networks.aegmm",
    "ClassConditionalGaussian": "class_conditional",
    "Detector": "detector",
    "Explanation": "explain.explanation",
    "GaussianMixture": "gaussian_mixture",
    "VAEGMM": "networks.vaegmm",
    "derive": "derived_frame",
    "gmm_energy": "gmm_functions",
    "gmm_params": "gmm_functions",
    "load_detector": "detector",
    "reference_energies": "fit.cross_fitting",
}

__all__ = [
    "AEGMM",
    "VAEGMM",
    "ClassConditionalGaussian",
    "Detector",
    "Explanation",
    "GaussianMixture",
    "derive",
    "gmm_energy",
    "gmm_params",
    "load_detector",
    "reference_energies",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
