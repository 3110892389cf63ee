"""Tests of the validation of events, sample weights and labels."""

import numpy as np
import pandas as pd
import pytest
import torch

from config.errors import ModelError
from monitor.detectors.inputs.checks import check_events, check_labels, check_sample_weights


def check_test_events(x, **options):
    return check_events(x, owner="GaussianMixture", **options)


def test_float32_stays_float32_and_is_not_copied():
    x = np.ones((3, 2), dtype=np.float32)
    assert check_test_events(x).values is x


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.float16, np.uint8])
def test_other_numbers_become_float64(dtype):
    assert check_test_events(np.ones((3, 2), dtype=dtype)).values.dtype == np.float64


def test_tensor_with_gradients_is_read():
    assert check_test_events(torch.ones(3, 2, requires_grad=True)).values.dtype == np.float32


def test_names_of_a_frame_are_returned():
    events = check_test_events(pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}))
    assert events.names == ("a", "b")
    assert events.values.tolist() == [[1.0, 3.0], [2.0, 4.0]]


def test_columns_of_a_frame_are_reordered_by_name():
    frame = pd.DataFrame({"b": [1.0], "a": [2.0]})
    events = check_test_events(frame, names=("a", "b"), n_features=2)
    assert events.values.tolist() == [[2.0, 1.0]]
    assert events.names == ("a", "b")
    assert events.values.flags.c_contiguous


def test_error_names_invalid_columns_of_a_reordered_frame():
    frame = pd.DataFrame({"b": [np.inf], "a": [2.0]})
    with pytest.raises(ModelError, match="columns 'b'"):
        check_test_events(frame, names=("a", "b"), n_features=2)


@pytest.mark.parametrize("names", [None, ("a", "b")])
def test_duplicate_names_raise_an_error(names):
    frame = pd.DataFrame([[1.0, 2.0]], columns=["a", "a"])
    with pytest.raises(ModelError, match="several columns have the name 'a'"):
        check_test_events(frame, names=names)


def test_error_for_other_names_lists_missing_and_extra_names():
    frame = pd.DataFrame({"a": [1.0], "c": [2.0]})
    with pytest.raises(ModelError, match="missing: 'b'; not in the training events: 'c'"):
        check_test_events(frame, names=("a", "b"), n_features=2)


def test_error_for_nan_and_infinity_names_rows_and_columns():
    x = np.zeros((100, 3))
    x[7, 1] = np.nan
    x[93, 2] = np.inf
    with pytest.raises(ModelError, match=r"NaN and inf in 2 of 100 rows \(rows 7, 93; columns 1, 2\)"):
        check_test_events(x)


def test_error_names_invalid_columns_of_a_frame():
    with pytest.raises(ModelError, match="columns 'amount'"):
        check_test_events(pd.DataFrame({"age": [1.0], "amount": [np.nan]}))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (None, "x is None"),
        ("events.csv", "x is text"),
        ([["a", "b"]], "must hold numbers"),
        (np.array([[1.0, "b"]], dtype=object), "row 0, column 1 is 'b'"),
        (np.array([[1.0, None]], dtype=object), r"column 1 is missing \(None\)"),
        (np.zeros(3), "Reshape your data"),
        (np.zeros((2, 3, 4)), "Flatten each event"),
        (np.zeros((0, 3)), "minimum of 1 is required"),
        (np.zeros((3, 0)), r"0 feature\(s\)"),
        (np.zeros((3, 2)), "X has 2 features, but GaussianMixture is expecting 5"),
        (np.zeros((3, 5), dtype=complex), "Complex data not supported"),
        ([[1.0, 2.0], [3.0]], "rows of equal length"),
    ],
)
def test_other_objects_than_a_table_of_numbers_raise_an_error(x, message):
    with pytest.raises(ModelError, match=message):
        check_test_events(x, n_features=5 if isinstance(x, np.ndarray) and x.shape[1:] in {(2,), (5,)} else None)


def test_model_error_is_a_value_error():
    with pytest.raises(ValueError, match="x is None"):
        check_test_events(None)


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1.0, 2.0], "3 numbers"), ([1.0, -1.0, 0.0], "rows 1"), ([0, 0, 0], "every sample_weight is zero")],
)
def test_invalid_sample_weights_raise_an_error(weights, message):
    with pytest.raises(ModelError, match=message):
        check_sample_weights(weights, 3, owner="GaussianMixture")


def test_labels_of_the_wrong_length_raise_an_error():
    with pytest.raises(ModelError, match="3 rows"):
        check_labels([0, 1], 3, owner="ClassConditionalGaussian")


def test_whole_floats_are_valid_labels():
    assert check_labels(np.array([0.0, -1.0]), 2, owner="x").tolist() == [0, -1]
