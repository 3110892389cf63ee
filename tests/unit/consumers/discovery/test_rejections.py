"""Counts of rejected records by reason and field, and the hints for settings."""

import json

import msgspec
import numpy as np
import pytest

from config.streams import EventSettings
from consumers.batch import Partition, RawBatch, Table
from consumers.codec import make_codec
from consumers.discovery.rejections import (
    RejectionCounts,
    RejectionGroup,
    find_nearest_name,
    suggest_fields,
)

GOOD = {"amount": 1.5, "age": 3, "ts": 1_767_225_600}


def count_rejections(values: object, features: tuple[str, ...] = ("amount", "age"), **event: object) -> RejectionCounts:
    """Decode the values as one batch, and count the rejected records."""
    settings = EventSettings.model_validate({"time": {"field": "ts"}, **event})
    is_table = isinstance(values, Table)
    n = len(values)  # type: ignore[arg-type]
    raw = RawBatch(
        partition=Partition(topic="t", partition=0),
        begin=5,
        end=5 + n,
        offsets=np.arange(5, 5 + n, dtype=np.int64),
        values=values,  # type: ignore[arg-type]
    )
    codec = make_codec(settings, features, layout="table" if is_table else "lines", max_future_us=0)
    counts = RejectionCounts(settings, features)
    counts.add(raw, codec.decode(raw, 0).dead_letters)
    return counts


def encode(**changes: object) -> bytes:
    return json.dumps({name: value for name, value in (GOOD | changes).items() if value is not ...}).encode()


def test_records_are_counted_by_reason_and_field_the_largest_group_first() -> None:
    values = [encode(), b"{", *[encode(amount="a")] * 3, *[encode(age="b")] * 2, encode(amount="c")]
    counts = count_rejections(values)
    assert counts.n_rejected == 7
    assert [(group.reason, group.n) for group in counts.groups()] == [
        ("not_a_number", 4),
        ("not_a_number", 2),
        ("not_json", 1),
    ]
    assert counts.groups()[0].detail.startswith("amount: ")


def test_an_absent_feature_is_counted_with_the_nearest_field() -> None:
    counts = count_rejections([encode(amount=..., amout=2.0)] * 3)
    assert counts.groups() == (
        RejectionGroup(
            reason="missing_feature", n=3, detail="amount: absent", hint="the field nearest to 'amount' is 'amout'"
        ),
    )


def test_an_absent_time_is_counted_with_the_nearest_field() -> None:
    group = count_rejections([encode(ts=..., Ts=1_767_225_600)]).groups()[0]
    assert (group.reason, group.hint) == ("no_time", "the field nearest to 'ts' is 'Ts'")


def test_a_null_feature_has_no_hint() -> None:
    group = count_rejections([encode(amount=None)]).groups()[0]
    assert (group.detail, group.hint) == ("amount: null", None)


def test_all_absent_fields_of_a_record_are_named() -> None:
    hint = count_rejections([json.dumps({"payload": {"amount": 1, "age": 2}}).encode()]).groups()[0].hint
    assert hint is not None
    assert "the field nearest to 'amount' is 'payload.amount'" in hint
    assert "the field nearest to 'age' is 'payload.age'" in hint


def test_another_encoding_is_named() -> None:
    group = count_rejections([msgspec.msgpack.encode(GOOD)]).groups()[0]
    assert (group.reason, group.hint) == ("not_json", "it looks like MessagePack; set event.format: msgpack")
    group = count_rejections([encode()], format="msgpack").groups()[0]
    assert (group.reason, group.hint) == ("not_msgpack", "it looks like JSON; set event.format: json")


def test_rows_of_tables_are_counted() -> None:
    table = Table(columns={"amount": ["1", "x"], "age": ["1", "2"], "TS": ["1767225600", "1767225601"]}, n_rows=2)
    groups = count_rejections(table).groups()
    assert {(group.reason, group.hint) for group in groups} == {
        ("not_a_number", None),
        ("no_time", "the field nearest to 'ts' is 'TS'"),
    }


def test_groups_are_bounded_and_records_are_counted_all_the_same() -> None:
    names = tuple(f"f{i}" for i in range(80))
    values = [
        json.dumps({name: ("bad" if i == row else 1.0) for i, name in enumerate(names)} | {"ts": 1}).encode()
        for row in range(80)
    ]
    counts = count_rejections(values, names)
    assert (counts.n_rejected, len(counts.groups())) == (80, 50)


@pytest.mark.parametrize(
    ("name", "names", "nearest"),
    [
        ("amount", ["amt", "Amount", "amounts"], "Amount"),
        ("card_age", ["cardAge", "age"], "cardAge"),
        ("amount", ["after.amount", "amounts"], "after.amount"),
        ("amount", ["amuont", "country"], "amuont"),
        ("amount", ["x", "y"], None),
        ("amount", [], None),
    ],
)
def test_nearest_name(name: str, names: list[str], nearest: str | None) -> None:
    assert find_nearest_name(name, names) == nearest


def test_fields_are_listed_if_none_is_near() -> None:
    assert suggest_fields(["amount"], ["x", "y"]) == "the fields of the record are 'x', 'y'"
    assert suggest_fields(["time"], ["x", "ts"]) == "the fields of the record are 'ts', 'x'"
    assert suggest_fields(["amount"], []) == "the record has no fields"
    assert suggest_fields(["x"], ["x", "y"]) is None
