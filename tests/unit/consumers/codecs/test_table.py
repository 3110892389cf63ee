"""The codec for tables with CSV cells as text and Parquet columns as arrays."""

import numpy as np
import pytest

from config.errors import ConfigError
from consumers.batch import Partition, RawBatch, Table
from consumers.codecs.table import check_columns
from tests.unit.consumers.raw_batches import NOW_US, decode


def table_batch(columns, row_errors=None, row_bytes=None):
    n = len(next(iter(columns.values())))
    return RawBatch(
        partition=Partition(topic="t.csv", partition=0),
        begin=0,
        end=n,
        offsets=np.arange(n, dtype=np.int64),
        values=Table(columns=columns, n_rows=n, row_errors=row_errors or {}, row_bytes=row_bytes),
    )


def read(columns, row_errors=None, row_bytes=None, **event):
    return decode(None, layout="table", batch=table_batch(columns, row_errors, row_bytes), **event)


def test_columns_are_matched_by_name_in_any_order():
    decoded = read({"b": ["2", "4"], "other": ["x", "y"], "a": ["1", " 3.5 "]})
    assert decoded.events.features.tolist() == [[1, 2], [3.5, 4]]
    assert decoded.events.times_us.tolist() == [NOW_US] * 2


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("", "missing_feature"),
        (None, "missing_feature"),
        ("x", "not_a_number"),
        ("true", "not_a_number"),
        ("1_000", "not_a_number"),
        ("١", "not_a_number"),
        ("nan", "not_finite"),
        ("-inf", "not_finite"),
        ("1e39", "not_finite"),
    ],
)
def test_bad_cell_is_rejected_with_its_reason(cell, reason):
    decoded = read({"a": ["1", "2"], "b": ["1", cell]})
    assert decoded.events.offsets.tolist() == [0]
    assert decoded.dead_letters.reasons == [reason]
    assert decoded.dead_letters.details[0].startswith("b: ")


def test_empty_cell_is_nan_with_mean_if_missing():
    decoded = read({"a": ["1", "", ""], "b": ["", "2", ""]}, missing="mean")
    np.testing.assert_array_equal(decoded.events.features, [[1, np.nan], [np.nan, 2]])
    assert decoded.dead_letters.reasons == ["missing_feature"]


def test_numeric_columns_are_used_unchanged():
    decoded = read({"a": np.array([1, 2, 3]), "b": np.array([0.5, np.nan, 1e39])})
    assert decoded.events.features.tolist() == [[1, 0.5]]
    assert decoded.dead_letters.reasons == ["not_finite", "not_finite"]


def test_booleans_in_a_table_are_not_numbers():
    assert read({"a": np.array([1]), "b": np.array([True])}).dead_letters.reasons == ["not_a_number"]


def test_nulls_in_a_table_are_missing_features():
    assert read({"a": [1, 2], "b": [None, 2.5]}).dead_letters.reasons == ["missing_feature"]


def test_row_error_is_rejected_with_the_readers_reason_and_the_row_bytes():
    decoded = read(
        {"a": ["1", None], "b": ["2", None]}, {1: ("wrong_length", "3 cells, the header has 2")}, [b"1,2", b"1,2,3"]
    )
    assert decoded.dead_letters.reasons == ["wrong_length"]
    assert decoded.dead_letters.payloads == [b"1,2,3"]


def test_time_key_and_id_are_read_from_columns():
    columns = {"a": ["1", "1"], "b": ["2", "2"], "ts": ["1714566896", ""], "k": ["x", ""], "id": ["7", "8"]}
    decoded = read(columns, time={"field": "ts"}, key="k", id="id")
    assert decoded.events.times_us.tolist() == [1_714_566_896_000_000]
    assert (decoded.events.keys, decoded.events.ids) == (["x"], ["7"])
    assert decoded.dead_letters.reasons == ["no_time"]


def test_payload_of_a_table_row_is_json():
    columns = {"a": np.array([1]), "b": np.array([np.inf]), "k": ["x\0"]}
    assert read(columns).dead_letters.payloads == ['{"a":"1","b":null,"k":"x�"}'.encode()]


def test_missing_column_error_suggests_the_nearest_column():
    with pytest.raises(ConfigError, match=r"event\.features.*'amount'.*did you mean 'amounts'"):
        check_columns(["amounts", "ts"], [("event.features", "amount")])


def test_missing_column_error_without_a_near_match_lists_all_columns():
    with pytest.raises(ConfigError, match="the columns are a, b"):
        check_columns(["a", "b"], [("event.key", "customer")])
