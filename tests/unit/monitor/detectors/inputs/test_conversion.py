"""Tests of the input types of events: every detector reads them alike or names the invalid element."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
import torch

from config.errors import ModelError
from monitor.detectors import AEGMM, VAEGMM, ClassConditionalGaussian, GaussianMixture

X = np.random.default_rng(0).normal(size=(60, 3))
NAMES = ["a", "b", "c"]
FRAME = pd.DataFrame(X, columns=NAMES)
WITH_NA = FRAME.astype("Float64")
WITH_NA.iloc[4, 2] = pd.NA
READ_ONLY = X.copy()
READ_ONLY.flags.writeable = False


@pytest.fixture(scope="module", params=[GaussianMixture, ClassConditionalGaussian, VAEGMM, AEGMM])
def detector(request):
    if request.param is ClassConditionalGaussian:
        return request.param().fit(FRAME, np.arange(60) % 2)
    return request.param().fit(FRAME, **({} if request.param is GaussianMixture else {"epochs": 1, "verbose": False}))


EQUIVALENT_FORMS = {
    "lists": X.tolist(),
    "rows": list(X),
    "tensors": [torch.from_numpy(row) for row in X],
    "objects": X.astype(object),
    "fortran": np.asfortranarray(X),
    "strided": np.repeat(X, 2, axis=0)[::2],
    "read-only": READ_ONLY,
    "big-endian": X.astype(">f8"),
    "long double": X.astype(np.longdouble),
    "masked array without masked elements": np.ma.masked_array(X),
    "tensor": torch.from_numpy(X),
    "tensor with gradient": torch.tensor(X, requires_grad=True),
    "frame of other order": FRAME[["c", "a", "b"]],
    "nullable frame": FRAME.astype("Float64"),
    "Arrow-backed frame": FRAME.astype("double[pyarrow]"),
    "Arrow table of other order": pa.table({name: FRAME[name] for name in "bca"}),
}


@pytest.mark.parametrize("events", EQUIVALENT_FORMS.values(), ids=EQUIVALENT_FORMS)
def test_energies_are_the_same_for_every_input_type(detector, events):
    assert np.array_equal(detector.energy(events), detector.energy(X))


@pytest.mark.parametrize("dtype", [">f4", "<f4"])
def test_float32_of_any_byte_order_stays_float32(detector, dtype):
    assert detector.energy(X.astype(dtype)).dtype == np.float32


INVALID_FORMS = {
    "NA": (WITH_NA, r"NaN in 1 of 60 rows \(rows 4; columns 'c'\)"),
    "NA among objects": (WITH_NA.astype(object), r"NaN in 1 of 60 rows \(rows 4; columns 'c'\)"),
    "masked elements": (np.ma.masked_array(X, mask=np.eye(60, 3)), r"NaN in 3 of 60 rows \(rows 0, 1, 2;"),
    "infinity": (np.where(np.eye(60, 3, -5) > 0, -np.inf, X), r"inf in 3 of 60 rows \(rows 5, 6, 7;"),
    "beyond float64": (X.astype(np.longdouble) * np.longdouble(10) ** 400, "inf in 60 of 60 rows"),
    "an integer beyond float64": ([[10**400, 1, 2]], "fit in float64"),
    "text in a frame": (FRAME.assign(b="x"), "row 0, column b is 'x'"),
    "dates in a frame": (FRAME.assign(b=pd.Timestamp("2026-01-01")), "row 0, column b is Timestamp"),
    "sparse matrix": (scipy.sparse.csr_array(X), r"pass x.toarray\(\)"),
    "sparse tensor": (torch.from_numpy(X).to_sparse(), "to_dense"),
    "tensor without data": (torch.empty(60, 3, device="meta"), "cannot be read"),
    "a generator": ((row for row in X), "must hold numbers"),
    "a number": (3.0, "expected a 2D array"),
    "one event as a flat array": (X[0], r"x.reshape\(1, -1\) for a single event"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("events", "message"), INVALID_FORMS.values(), ids=INVALID_FORMS)
def test_error_names_the_invalid_element(detector, events, message):
    with pytest.raises(ModelError, match=message):
        detector.energy(events)


def test_numbers_with_overflowing_squares_raise_an_error_in_fit_and_explain(detector):
    huge = X.copy()
    huge[7, 1] = -1e200
    with pytest.raises(ModelError, match=r"beyond 1e\+150.*rows 7; columns 'b'"):
        detector.explain(huge)
    labels = [np.arange(60) % 2] if isinstance(detector, ClassConditionalGaussian) else []
    with pytest.raises(ModelError, match=r"beyond 1e\+150.*rows 7; columns 1"):
        type(detector)().fit(huge, *labels)


@pytest.mark.parametrize("size", [1e38, 1e150, 1e300])
def test_energies_of_far_events_are_finite_and_grow(detector, size):
    near, far = detector.energy(np.array([[size / 100, 0, 0], [size, 0, 0]]))
    assert np.isfinite([near, far]).all()
    assert far >= near > detector.energy(X).max()


def test_constant_and_repeated_rows_can_be_fitted(detector):
    for rows in (np.ones((60, 3)), np.repeat(X[:2], 30, axis=0)):
        if isinstance(detector, ClassConditionalGaussian):
            fitted = ClassConditionalGaussian().fit(rows, np.arange(60) % 2)
        elif isinstance(detector, GaussianMixture):
            fitted = GaussianMixture(2).fit(rows)
        else:
            fitted = type(detector)().fit(rows, epochs=1, verbose=False)
        assert np.isfinite(fitted.energy(rows)).all()
        assert fitted.energy(rows + 5.0).min() > fitted.energy(rows).max()
