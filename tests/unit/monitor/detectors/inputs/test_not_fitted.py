"""Tests of detectors before the fit, and of frames with reordered columns."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from config.errors import ModelError
from monitor.detectors import AEGMM, VAEGMM, ClassConditionalGaussian, GaussianMixture

EVENTS = np.random.default_rng(0).normal(size=(60, 3)) * [1.0, 10.0, 100.0]
FRAME = pd.DataFrame(EVENTS, columns=["a", "b", "c"])
DETECTORS = [GaussianMixture, ClassConditionalGaussian, VAEGMM, AEGMM]


def fit_detector(kind, x):
    if kind is ClassConditionalGaussian:
        return kind().fit(x, np.arange(len(x)) % 2)
    return kind().fit(x) if kind is GaussianMixture else kind().fit(x, epochs=1, verbose=False)


@pytest.mark.parametrize("kind", DETECTORS)
@pytest.mark.parametrize("use", ["energy", "explain", "predict", "to_bytes"])
def test_use_before_the_fit_raises_the_error_of_scikit_learn_and_ours(kind, use):
    arguments = [] if use == "to_bytes" else [EVENTS]
    detector = kind(threshold=1.0) if kind in {VAEGMM, AEGMM} else kind()
    for error in (NotFittedError, ModelError):
        with pytest.raises(error, match=f"this {kind.__name__} is not fitted yet; call fit"):
            getattr(detector, use)(*arguments)


@pytest.mark.slow
def test_not_fitted_error_does_not_import_scikit_learn():
    program = (
        "import sys; from config.errors import ModelError; from monitor.detectors import GaussianMixture\n"
        "try: GaussianMixture().energy([[1.0]])\n"
        "except ModelError as error: print(error, 'sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "this GaussianMixture is not fitted yet; call fit(x) or load one first False"


@pytest.mark.parametrize("kind", DETECTORS)
def test_columns_of_a_frame_are_matched_by_name(kind):
    detector = fit_detector(kind, FRAME)
    reordered = FRAME[["c", "a", "b"]]
    assert np.array_equal(detector.energy(reordered), detector.energy(FRAME))
    explanation, expected = detector.explain(reordered), detector.explain(FRAME)
    assert explanation.features == ("a", "b", "c")
    assert np.array_equal(explanation.cost, expected.cost)
    assert np.array_equal(explanation.value, expected.value)


@pytest.mark.parametrize("kind", DETECTORS)
def test_frame_with_another_set_of_names_raises_an_error(kind):
    detector = fit_detector(kind, FRAME)
    with pytest.raises(ModelError, match="missing: 'b'; not in the training events: 'd'"):
        detector.energy(FRAME.rename(columns={"b": "d"}))
