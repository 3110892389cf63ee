"""The codec for JSON and MessagePack records, and the reasons for rejections."""

import json
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from tests.unit.consumers.raw_batches import NOW_US, STAMP_US, decode, json_records, raw_batch, rejection_of


def features_of(decoded):
    assert decoded.dead_letters.reasons == []
    return decoded.events.features.tolist()


def test_named_features_are_in_the_models_order():
    decoded = decode(json_records({"a": 1, "b": 2.5, "other": "x"}, {"b": 4, "a": -3}))
    assert features_of(decoded) == [[1, 2.5], [-3, 4]]
    assert decoded.events.features.dtype == np.float64


def test_features_keep_the_digits_of_the_message():
    values = [1_000_000_000.25, 0.1]
    assert features_of(decode(json_records({"a": values[0], "b": values[1]}, values))) == [values, values]


def test_list_of_numbers_gives_the_features_by_position():
    assert features_of(decode(json_records([1, 2], {"a": 3, "b": 4}, [5, 6.5]))) == [[1, 2], [3, 4], [5, 6.5]]


def test_single_feature_is_a_column():
    assert features_of(decode(json_records({"a": 1}, [2]), ("a",))) == [[1], [2]]


def test_integer_beyond_2_to_the_53_is_a_number():
    assert features_of(decode([b'{"a": 9007199254740993, "b": 123456789012345678901234567890}'])) == [
        [float(2**53), 123456789012345678901234567890.0]
    ]


def test_dotted_name_is_a_path_or_a_key_with_dots():
    names = ("card.age_days", "card.limits.day", "a")
    nested = {"card": {"age_days": 1, "limits": {"day": 2}}, "a": 3}
    keys = {"card.age_days": 1, "card.limits.day": 2, "a": 3}
    mixed = {"card": {"age_days": 1}, "card.limits.day": 2, "a": 3}
    for batch in ([nested], [keys], [mixed], [nested, keys, mixed, keys, keys, nested]):
        assert features_of(decode(json_records(*batch), names)) == [[1, 2, 3]] * len(batch)


def test_key_with_dots_takes_precedence_over_the_path_for_all_fields():
    both = {"c": {"d": 1}, "c.d": 2, "a": 0}
    path, key = {"c": {"d": 3}, "a": 0}, {"c.d": 4, "a": 0}
    names = ("c.d", "a")
    assert features_of(decode(json_records(both, path, path, path), names))[0] == [2, 0]
    assert features_of(decode(json_records(both, key, key, key), names))[0] == [2, 0]


def test_field_can_be_both_feature_and_key():
    decoded = decode(json_records({"a": 7, "b": 1}), key="a")
    assert features_of(decoded) == [[7, 1]]
    assert decoded.events.keys == ["7"]


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        (None, "empty", "tombstone"),
        (b"", "empty", "no bytes"),
        (b" \n", "empty", "white space"),
        (b"{", "not_json", "line 1 column 2"),
        (b'{"a": 1, "b": 2} tail', "not_json", "Extra data"),
        (b"\xff\xfe", "not_json", "utf-8"),
        (b"[" * 100_000, "not_json", "too deeply"),
        (b'"text"', "not_an_object", "'text'"),
        (b"3", "not_an_object", "3"),
        (b"null", "not_an_object", "None"),
        (b'{"a": 1}', "missing_feature", "b: absent"),
        (b'{"a": 1, "b": null}', "missing_feature", "b: null"),
        (b"[1, null]", "missing_feature", "b: null"),
        (b'{"a": 1, "b": true}', "not_a_number", "b: True"),
        (b'{"a": 1, "b": "2"}', "not_a_number", "b: '2'"),
        (b'{"a": 1, "b": [2]}', "not_a_number", "b: a list of 1"),
        (b"[1, true]", "not_a_number", "b: True"),
        (b'{"a": 1, "b": NaN}', "not_finite", "b: nan"),
        (b'{"a": -Infinity, "b": 1}', "not_finite", "a: -inf"),
        (b'{"a": 1, "b": 1e39}', "not_finite", "b: 1e+39"),
        (b'{"a": 1, "b": 1e400}', "not_finite", "b: inf"),
        (b'{"a": 1, "b": 1' + b"0" * 5000 + b"}", "not_finite", "b: inf"),
        (b"[1, 3.4028235677973366e38]", "not_finite", "b: 3.4"),
        (b"[1, 2, 3]", "wrong_length", "3 numbers, the model has 2 features"),
        (b"[]", "wrong_length", "0 numbers"),
        (b"\x00\x00\x00\x00\x07{}", "schema_registry_framing", "schema id 7"),
        (b" " * 2**20 + b"[1, 2]", "too_large", "more than 1048576 bytes"),
    ],
)
def test_bad_record_is_rejected_with_its_reason(value, reason, detail):
    actual_reason, actual_detail = rejection_of(value)
    assert actual_reason == reason
    assert detail.lower() in actual_detail.lower()


def test_largest_float32_is_a_feature():
    decoded = decode([b"[3.4028234663852886e38, 3.4028235677973362e38]"])
    assert np.array(features_of(decoded), np.float32).tolist() == [[float(np.finfo(np.float32).max)] * 2]


def test_bad_record_does_not_affect_other_records():
    decoded = decode([b'{"a": 1, "b": 2}', b"?", b'{"a": 3, "b": 1e39}', b'{"a": 5, "b": 6}'])
    assert decoded.events.offsets.tolist() == [0, 3]
    assert decoded.events.features.tolist() == [[1, 2], [5, 6]]
    assert decoded.dead_letters.offsets.tolist() == [1, 2]
    assert decoded.dead_letters.end_offsets.tolist() == [2, 3]
    assert decoded.dead_letters.reasons == ["not_json", "not_finite"]


def test_dead_letter_contains_the_first_4_kib_of_its_record():
    decoded = decode([b"x" * 10_000, None])
    assert decoded.dead_letters.payloads == [b"x" * 4096, None]


def test_detail_is_bounded_and_without_nul_and_lone_surrogates():
    _, detail = rejection_of(json.dumps({"a": 1, "b": "x\0\ud800" * 500}).encode())
    assert len(detail) <= 200
    assert "\0" not in detail
    assert detail.encode()


def test_missing_feature_is_nan_with_mean_if_missing():
    decoded = decode(json_records({"a": 1}, {"a": None, "b": 2}, [3, None]), missing="mean")
    assert decoded.dead_letters.reasons == []
    np.testing.assert_array_equal(decoded.events.features, [[1, np.nan], [np.nan, 2], [3, np.nan]])


def test_features_of_a_missing_nested_object_are_missing():
    decoded = decode(json_records({"a": 1}, {"a": 1, "c": None}, {"c": {"d": 2}}), ("a", "c.d"), missing="mean")
    np.testing.assert_array_equal(decoded.events.features, [[1, np.nan], [1, np.nan], [np.nan, 2]])


@pytest.mark.parametrize("value", [b"{}", b'{"c": 1}', b"[null, null]"])
def test_record_without_features_is_rejected_even_with_mean_if_missing(value):
    assert rejection_of(value, missing="mean")[0] == "missing_feature"


@pytest.mark.parametrize(
    ("value", "reason"),
    [(b'{"a": 1, "b": NaN}', "not_finite"), (b'{"a": 1, "b": "x"}', "not_a_number"), (b"[1]", "wrong_length")],
)
def test_mean_replaces_only_missing_features(value, reason):
    assert rejection_of(value, missing="mean")[0] == reason


def test_msgpack_records_are_decoded_like_json():
    values = [msgspec.msgpack.encode(each) for each in ({"a": 1, "b": 2.5}, [3, 4])]
    assert features_of(decode(values, format="msgpack")) == [[1, 2.5], [3, 4]]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\xc1", "not_msgpack"),
        (b"\x93\x01", "not_msgpack"),
        (msgspec.msgpack.encode("text"), "not_an_object"),
        (msgspec.msgpack.encode([1, True]), "not_a_number"),
        (msgspec.msgpack.encode([1.0, float("nan")]), "not_finite"),
        (b"\x00\x00\x00\x00\x01", "schema_registry_framing"),
        (None, "empty"),
    ],
)
def test_bad_msgpack_record_is_rejected_with_its_reason(value, reason):
    assert rejection_of(value, format="msgpack")[0] == reason


def test_nan_in_msgpack_is_rejected_even_with_mean_if_missing():
    values = [msgspec.msgpack.encode(each) for each in ([1.0, float("nan")], [1.0, None])]
    decoded = decode(values, format="msgpack", missing="mean")
    assert decoded.dead_letters.reasons == ["not_finite"]
    assert decoded.events.offsets.tolist() == [1]


def test_msgpack_timestamp_is_a_time():
    moment = msgspec.json.decode(b'"2024-05-01T12:34:56.123456Z"', type=__import__("datetime").datetime)
    value = msgspec.msgpack.encode({"a": 1, "b": 2, "ts": moment})
    decoded = decode([value], format="msgpack", time={"field": "ts"})
    assert decoded.events.times_us.tolist() == [STAMP_US + 123_456]


def test_broker_timestamp_is_the_time_without_a_time_field():
    assert decode(json_records([1, 2])).events.times_us.tolist() == [STAMP_US]


def test_file_event_without_a_time_field_has_the_time_of_reading():
    decoded = decode(None, batch=raw_batch(json_records([1, 2]), timestamps=False))
    assert decoded.events.times_us.tolist() == [NOW_US]


def test_record_without_a_broker_timestamp_has_no_time():
    batch = raw_batch(json_records([1, 2]))
    batch.timestamps_us[:] = -1_000
    decoded = decode(None, batch=batch)
    assert decoded.dead_letters.reasons == ["no_time"]


@pytest.mark.parametrize(
    ("ts", "reason"),
    [
        (None, "no_time"),
        ("yesterday", "bad_time"),
        (True, "bad_time"),
        ({"at": 1}, "bad_time"),
        ("1969-01-01T00:00:00Z", "bad_time"),
        (STAMP_US + 300_000_001, "future_time"),
    ],
)
def test_event_without_a_valid_time_is_rejected(ts, reason):
    actual_reason, detail = rejection_of(json_records({"a": 1, "b": 2, "ts": ts})[0], time={"field": "ts"})
    assert actual_reason == reason
    assert detail.startswith("ts: ")


def test_list_message_has_no_time_if_a_time_field_is_configured():
    assert rejection_of(b"[1, 2]", time={"field": "ts"})[0] == "no_time"


def test_time_up_to_max_future_after_the_broker_timestamp_is_accepted():
    decoded = decode(json_records({"a": 1, "b": 2, "ts": STAMP_US + 300_000_000}), time={"field": "ts"})
    assert len(decoded.events) == 1


@pytest.mark.parametrize("stamp_us", [NOW_US + 1, -1_000])
def test_implausible_future_time_is_rejected_for_any_broker_timestamp(stamp_us):
    values = json_records({"a": 1, "b": 2, "ts": NOW_US + 1}, {"a": 1, "b": 2, "ts": NOW_US})
    decoded = decode(
        None,
        batch=replace(raw_batch(values), timestamps_us=np.full(2, stamp_us), max_event_time_us=NOW_US),
        time={"field": "ts"},
    )
    assert (decoded.events.times_us.tolist(), decoded.dead_letters.reasons) == ([NOW_US], ["future_time"])


def test_implausible_future_broker_timestamp_is_rejected_as_event_time():
    stamps = np.array([NOW_US, NOW_US + 1])
    decoded = decode(
        None, batch=replace(raw_batch(json_records([1, 2], [3, 4])), timestamps_us=stamps, max_event_time_us=NOW_US)
    )
    assert (decoded.events.times_us.tolist(), decoded.dead_letters.reasons) == ([NOW_US], ["future_time"])


def test_file_codec_accepts_future_times():
    batch = raw_batch(json_records({"a": 1, "b": 2, "ts": "2200-01-01T00:00:00Z"}), timestamps=False)
    assert len(decode(None, batch=batch, time={"field": "ts"}).events) == 1


def test_key_and_id_can_be_any_scalar():
    values = json_records(
        {"a": 1, "b": 2, "k": "x", "id": 7},
        {"a": 1, "b": 2, "k": 1.5, "id": True},
        {"a": 1, "b": 2, "k": None},
        {"a": 1, "b": 2, "k": {"no": "scalar"}, "id": 10**400},
    )
    events = decode(values, key="k", id="id").events
    assert events.keys == ["x", "1.5", None, None]
    assert events.ids == ["7", "true", None, events.ids[3]]
    assert len(events.ids[3]) <= 256


def test_kafka_key_is_the_key_without_a_key_field():
    batch = raw_batch(json_records([1, 2], [3, 4], [5, 6]), keys=[b"k1", None, b"\xff\x00"])
    assert decode(None, batch=batch).events.keys == ["k1", None, "��"]


def test_events_without_keys_have_no_key_column():
    assert decode(json_records([1, 2])).events.keys is None
    assert decode(None, batch=raw_batch(json_records([1, 2]), keys=[None])).events.keys is None


def test_long_keys_are_cut_and_nul_and_lone_surrogates_replaced():
    values = [*json_records({"a": 1, "b": 2, "k": "x" * 500}), b'{"a": 1, "b": 2, "k": "\\u0000y\\ud800"}']
    assert decode(values, key="k").events.keys == ["x" * 256, "�y�"]


def test_unreadable_batch_is_one_dead_letter_for_its_range():
    batch = raw_batch([], begin=10, skip_reason="unreadable_batch")
    object.__setattr__(batch, "end", 25)
    decoded = decode(None, batch=batch)
    assert decoded.dead_letters.offsets.tolist() == [10]
    assert decoded.dead_letters.end_offsets.tolist() == [25]
    assert decoded.dead_letters.reasons == ["unreadable_batch"]


def test_records_lost_to_retention_are_not_dead_letters():
    decoded = decode(None, batch=raw_batch([], begin=10, skip_reason="retention"))
    assert (len(decoded.dead_letters), decoded.skip_reason) == (0, "retention")


NAMES = (
    'up{code="200"}',
    "back\\slash",
    "tab\t",
    "line\n",
    "\x7f",
    "'",
    "é",
    "😀",
    "${HOME}",
    " pad ",
    "a.b",
    '"',
    "#",
)


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@pytest.mark.parametrize("name", NAMES)
def test_name_with_any_characters_is_a_feature_a_time_a_key_and_an_id(name, encoding):
    pack = msgspec.json.encode if encoding == "json" else msgspec.msgpack.encode
    values = [pack({name: 1_714_566_896, "other": 2}), pack({name: 1_714_566_897, "other": 3})]
    assert features_of(decode(values, (name, "other"), format=encoding))[0][1] == 2
    decoded = decode(values, ("other",), format=encoding, time={"field": name}, key=name, id=name)
    assert features_of(decoded) == [[2], [3]]
    assert decoded.events.times_us.tolist() == [1_714_566_896_000_000, 1_714_566_897_000_000]
    assert decoded.events.keys == decoded.events.ids == ["1714566896", "1714566897"]


def test_nested_name_with_quotes_is_a_path():
    assert features_of(decode(json_records({'a"': {"b\\": 1}}), ('a".b\\',))) == [[1]]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_json_in_another_unicode_encoding_is_read(encoding):
    values = ['{"a": 1, "b": 2, "é": "😀"}'.encode(encoding), "[3, 4]".encode(encoding)]
    assert features_of(decode(values)) == [[1, 2], [3, 4]]
