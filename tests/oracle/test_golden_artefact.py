"""Test of files of format 1: they stay readable and give their original energies."""

import json
from pathlib import Path

import numpy as np

from monitor.detectors import load_detector

GOLDEN = Path(__file__).parent / "golden"


def test_a_mixture_of_format_one_has_its_original_energies():
    expected = json.loads((GOLDEN / "gaussian_mixture.json").read_text())
    detector = load_detector(GOLDEN / "gaussian_mixture.safetensors", kind="gaussian_mixture")
    assert detector.feature_names_ == tuple(expected["feature_names"])
    assert np.allclose(detector.energy(np.array(expected["events"])), expected["energies"], rtol=1e-12)
    assert len(detector.reference_energies_) == expected["reference_energies"]
    assert np.isclose(detector.reference_energies_[-1], expected["largest_reference"])
    assert detector.report_.rows == expected["rows"]
