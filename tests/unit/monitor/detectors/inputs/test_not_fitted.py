"""Use before the fit, and frames whose columns moved: the same answers from every detector."""

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


def fitted(kind, x):
    if kind is ClassConditionalGaussian:
        return kind().fit(x, np.arange(len(x)) % 2)
    return kind().fit(x) if kind is GaussianMixture else kind().fit(x, epochs=1, verbose=False)


@pytest.mark.parametrize("kind", DETECTORS)
@pytest.mark.parametrize("use", ["energy", "explain", "predict", "to_bytes"])
def test_use_before_the_fit_is_scikit_learns_error_and_ours(kind, use):
    arguments = [] if use == "to_bytes" else [EVENTS]
    detector = kind(threshold=1.0) if kind in {VAEGMM, AEGMM} else kind()
    for error in (NotFittedError, ModelError):
        with pytest.raises(error, match=f"this {kind.__name__} is not fitted yet; call fit"):
            getattr(detector, use)(*arguments)


def test_the_error_needs_no_scikit_learn():
    program = (
        "import sys; from config.errors import ModelError; from monitor.detectors import GaussianMixture\n"
        "try: GaussianMixture().energy([[1.0]])\n"
        "except ModelError as error: print(error, 'sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "this GaussianMixture is not fitted yet; call fit(x) or load one first False"


@pytest.mark.parametrize("kind", DETECTORS)
def test_columns_of_a_frame_are_taken_by_name_in_any_order(kind):
    detector = fitted(kind, FRAME)
    moved = FRAME[["c", "a", "b"]]
    assert np.array_equal(detector.energy(moved), detector.energy(FRAME))
    ours, theirs = detector.explain(moved), detector.explain(FRAME)
    assert ours.features == ("a", "b", "c")
    assert np.array_equal(ours.cost, theirs.cost)
    assert np.array_equal(ours.value, theirs.value)


@pytest.mark.parametrize("kind", DETECTORS)
def test_a_frame_with_another_set_of_names_is_refused(kind):
    detector = fitted(kind, FRAME)
    with pytest.raises(ModelError, match="missing: 'b'; not known to the model: 'd'"):
        detector.energy(FRAME.rename(columns={"b": "d"}))
