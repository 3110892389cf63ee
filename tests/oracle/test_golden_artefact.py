"""The first format stays readable for ever: files written by it give the energies that they gave then."""

import json
from pathlib import Path

import numpy as np

from monitor.detectors import load_detector

GOLDEN = Path(__file__).parent / "golden"


def test_a_mixture_of_format_one_is_read_and_scores_as_it_did():
    expected = json.loads((GOLDEN / "gaussian_mixture.json").read_text())
    detector = load_detector(GOLDEN / "gaussian_mixture.safetensors", kind="gaussian_mixture")
    assert detector.feature_names_ == tuple(expected["feature_names"])
    assert np.allclose(detector.energy(np.array(expected["events"])), expected["energies"], rtol=1e-12)
    assert len(detector.reference_energies_) == expected["reference_energies"]
    assert np.isclose(detector.reference_energies_[-1], expected["largest_reference"])
    assert detector.report_.rows == expected["rows"]
