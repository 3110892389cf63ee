"""Detection of a stream's features."""

import msgspec
import numpy as np
import pytest

from config.errors import ConfigError
from config.streams import EventSettings
from consumers.discovery.features import discover_features
from tests.unit.consumers.codecs.test_table import table_batch
from tests.unit.consumers.raw_batches import json_records, raw_batch


def found(values, **event):
    return discover_features(EventSettings(**event), [raw_batch(values)])


def test_numeric_fields_are_features_in_order_of_first_appearance():
    values = json_records({"z": 1, "name": "x", "a": 2.5, "flag": True}, {"a": 1, "z": 0})
    assert found(values) == ("z", "a")


def test_time_key_and_id_are_not_features():
    values = json_records({"ts": 1, "k": 2, "n": 3, "x": 4})
    assert found(values, time={"field": "ts"}, key="k", id="n") == ("x",)


def test_nested_fields_have_dotted_names():
    assert found(json_records({"card": {"age": 1, "limits": {"day": 2}}, "x": 3})) == (
        "card.age",
        "card.limits.day",
        "x",
    )


def test_key_with_dots_and_equal_path_are_one_feature():
    assert found(json_records({"c": {"d": 1}, "c.d": 2})) == ("c.d",)


def test_field_is_a_feature_only_if_nearly_all_events_have_it_as_a_number():
    events = [{"x": 1, "often": 1} if i % 50 else {"x": None if i == 0 else 1} for i in range(200)]
    assert found(json_records(*events)) == ("x",)


def test_unreadable_records_are_skipped():
    assert found([None, b"?", b"3", *json_records({"x": 1})]) == ("x",)


def test_lists_have_numbered_features_of_the_most_frequent_length():
    assert found(json_records([1, 2, 3], [1, 2, 3], [1], {"a": 1})) == ("x0", "x1", "x2")


def test_float32_records_have_numbered_features_of_the_most_frequent_length():
    values = [b"\0" * 8, b"\0" * 7, b"\0" * 8, b"\0" * 12]
    assert found(values, format="float32") == ("x0", "x1")


def test_features_of_msgpack_records_are_detected():
    assert found([msgspec.msgpack.encode({"b": 1, "a": 2})], format="msgpack") == ("b", "a")


def test_configured_features_are_returned_unchanged():
    assert found(json_records({"a": 1}), features=["q", "r"]) == ("q", "r")


def test_numeric_columns_of_a_table_are_features():
    columns = {"n": ["1", "2"], "name": ["x", "y"], "ts": ["1", "2"], "x": ["0.5", "-1e3"]}
    event = EventSettings(time={"field": "ts"})
    assert discover_features(event, [table_batch(columns)]) == ("n", "x")
    assert discover_features(EventSettings(), [table_batch({"p": np.array([1.5]), "q": np.array([True])})]) == ("p",)


def test_configured_column_missing_in_a_table_is_an_error_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"'amout'.*did you mean 'amount'"):
        discover_features(EventSettings(features=["amout"]), [table_batch({"amount": ["1"]})])


@pytest.mark.parametrize("values", [[], [b"?"], json_records({"name": "x"})])
def test_no_numeric_field_is_an_error_with_advice(values):
    with pytest.raises(ConfigError, match=r"event\.features: no field is a number"):
        found(values)


def test_more_than_a_thousand_automatic_features_are_refused():
    values = json_records({f"f{i}": i for i in range(1_000)})
    assert len(found(values)) == 1_000
    for wide, event in (
        (json_records({f"f{i}": i for i in range(1_001)}), {}),
        (json_records(list(range(1_001))), {}),
        ([b"\0" * 4_004], {"format": "float32"}),
    ):
        with pytest.raises(ConfigError, match=r"auto found 1,001 numeric fields .* at most 1,000"):
            found(wide, **event)
    assert found(json_records({"x": 1}), features=[f"f{i}" for i in range(1_001)])


def test_names_that_occur_once_are_not_kept():
    events = [{"x": 1, **{f"{i}-{j}": j for j in range(100)}} for i in range(300)]
    assert found(json_records(*events)) == ("x",)


def test_name_that_no_database_can_store_is_not_a_feature():
    assert found([b'{"a\\u0000": 1, "b\\ud800": 2, "c\\"": 3}']) == ('c"',)
