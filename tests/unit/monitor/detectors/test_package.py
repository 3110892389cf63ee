"""Tests of the public names of the package and of the cost of importing it."""

import subprocess
import sys

import pytest

import monitor.detectors
from config.errors import ModelError
from monitor.detectors.artefact import Artefact, to_bytes


def test_every_public_name_can_be_imported():
    for name in monitor.detectors.__all__:
        assert getattr(monitor.detectors, name) is not None


def test_importing_the_package_imports_no_torch():
    program = "import sys, monitor.detectors; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_unknown_name_raises_an_attribute_error():
    with pytest.raises(AttributeError, match="NoSuchDetector"):
        _ = monitor.detectors.NoSuchDetector


def test_error_for_an_unknown_kind_lists_the_known_kinds():
    stored = Artefact(kind="oracle", n_features=1, feature_names=None, tensors={})
    with pytest.raises(ModelError, match="'oracle'; known are gaussian_mixture"):
        monitor.detectors.load_detector(to_bytes(stored))
