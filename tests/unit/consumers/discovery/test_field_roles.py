"""What each field of some first events is good for, and why not."""

import random
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import pytest

from consumers.batch import Partition, RawBatch, Table
from consumers.discovery.field_roles import FieldRoles, assign_roles, estimate_volume
from consumers.discovery.sample import RecordSample, sample_records

NOW_US = 1_767_225_600_000_000
N = 400


def batch(values: Sequence[Any], *, partition: int = 0, **others: Any) -> RawBatch:
    return RawBatch(
        partition=Partition(topic="t", partition=partition),
        begin=0,
        end=len(values),
        offsets=np.arange(len(values)),
        values=values if isinstance(values, Table) else [msgspec.json.encode(value) for value in values],
        **others,
    )


def sample_of(events: Sequence[Any], **others: Any) -> RecordSample:
    return sample_records([batch(events, **others)], "json")


def judge(events: Sequence[Any], **others: Any) -> FieldRoles:
    return assign_roles(sample_of(events, **others), NOW_US, max_future_us=300_000_000)


def verdicts(events: Sequence[Any], **others: Any) -> dict[str, tuple[str, str]]:
    return {each.name: (each.role, each.reason) for each in judge(events, **others).roles}


def verdict(values: Sequence[Any], name: str = "x") -> tuple[str, str]:
    """Return role and reason of one field beside an ordinary feature."""
    return verdicts([{name: value, "other": (i * 7919) % 13 + 0.5} for i, value in enumerate(values)])[name]


def drawn(seed: int = 1, n: int = N) -> random.Random:
    return random.Random(seed)


_RNG = random.Random(7)
MEASURES: Mapping[str, list[Any]] = {
    "fractions": [_RNG.gauss(5, 2) for _ in range(N)],
    "small counts": [_RNG.randrange(4) for _ in range(N)],
    "two values": [_RNG.randrange(2) for _ in range(N)],
    "whole measures of many sizes": [int(_RNG.lognormvariate(12, 2)) for _ in range(N)],
    "memory in bytes": [int(_RNG.gauss(1.5e9, 1e6)) // 4096 * 4096 for _ in range(N)],
    "a sawtooth": [i % 20 for i in range(N)],
    "one absent in a hundred": [None if i % 100 == 3 else _RNG.random() for i in range(N)],
}


@pytest.mark.parametrize("values", MEASURES.values(), ids=MEASURES.keys())
def test_a_measure_is_a_feature(values: list[Any]) -> None:
    assert verdict(values)[0] == "feature"


REFUSED: Sequence[tuple[str, list[Any], str]] = (
    ("constant", [3] * N, "constant, always 3"),
    ("near-unique integers", [_RNG.randrange(10**7) for _ in range(N)], "near-unique integer"),
    ("a counter", [5 * i + 100 for i in range(N)], "monotone counter, 100 to 2,095"),
    ("a counter that was reset", [i % 300 + 1 for i in range(N)], "monotone counter"),
    ("a counter in fractions", [i * 1.37 + 0.1 for i in range(N)], "monotone counter"),
    ("epochs in ms, in no order", [1_767_000_000_000 + _RNG.randrange(10**8) for _ in range(N)], "epoch in ms"),
    ("truth", [_RNG.random() < 0.5 for _ in range(N)], "boolean"),
    ("text", [_RNG.choice(["EUR", "USD"]) for _ in range(N)], "text, such as 'EUR'|text, such as 'USD'"),
    ("numbers as text", [str(_RNG.random()) for _ in range(N)], "numbers written as text"),
    ("present in half", [_RNG.random() if i % 2 else None for i in range(N)], "present in 50% of the events"),
    ("lists", [[1, 2] for _ in range(N)], "a nested list"),
    ("mixed", [1.5 if i % 10 else "n/a" for i in range(N)], "a number in only 90% .*text in 10%"),
    ("always null", [None] * N, "null in every event"),
    ("infinite", [1e39 if i % 10 == 0 else 1.0 * i for i in range(N)], "a number in only 90% .*not finite"),
)


@pytest.mark.parametrize(("values", "why"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_does_not_say_how_an_event_is_is_refused_with_the_reason(values: list[Any], why: str) -> None:
    role, said = verdict(values)
    assert role == "refused"
    assert re.search(why, said), said


@pytest.mark.parametrize("name", ["customer_id", "userId", "ID", "merchant-id", "device.id"])
def test_whole_numbers_that_are_called_identifiers_are_no_features(name: str) -> None:
    rng = drawn()
    events = [
        {name: rng.randrange(20), "k": f"k{i % 7}", "user_key": f"u{i % 40}", "y": rng.random()} for i in range(N)
    ]
    assert verdicts(events)[name][0] in {"refused", "key"}


@pytest.mark.parametrize("name", ["paid", "grid", "humid", "bid"])
def test_a_name_that_only_ends_in_the_same_letters_is_no_identifiers(name: str) -> None:
    rng = drawn()
    assert verdict([rng.randrange(20) for _ in range(N)], name)[0] == "feature"


def test_nested_objects_are_dotted_and_names_may_be_of_any_script() -> None:
    rng = drawn()
    found = verdicts([{"card": {"age": rng.random()}, "größe": rng.random(), "温度": rng.random()} for _ in range(N)])
    assert {name for name, (role, _) in found.items() if role == "feature"} == {"card.age", "größe", "温度"}


def test_a_name_that_no_setting_can_name_is_refused() -> None:
    rng = drawn()
    assert "empty part" in verdict([rng.random() for _ in range(N)], "a..b")[1]


def test_one_event_accepts_its_numbers_since_nothing_speaks_against_them() -> None:
    found = verdicts([{"x": 1, "name": "n", "ok": True}])
    assert {name: role for name, (role, _) in found.items()} == {"x": "feature", "name": "refused", "ok": "refused"}
    assert "one event says nothing" in found["x"][1]


def test_no_events_have_no_fields() -> None:
    assert judge([]).roles == ()


def test_when_everything_is_refused_there_is_no_feature() -> None:
    found = judge([{"a": "x", "b": True, "c": 4, "n": i} for i in range(N)])
    assert found.names("feature") == ()


def test_five_hundred_fields_are_judged_within_seconds() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(1_000, 500)).round(4).tolist()
    began = time.monotonic()
    found = judge([{f"f{j}": cell for j, cell in enumerate(row)} for row in rows])
    assert len(found.names("feature")) == 500
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("ts", [1_767_000_000 + i * 0.5 for i in range(N)]),
        ("created_at", [datetime.fromtimestamp(1_767_000_000 + i, UTC).isoformat() for i in range(N)]),
        ("@timestamp", [(1_767_000_000_000 + i * 7) for i in range(N)]),
        ("when", [1_767_000_000_000_000 + i * 1000 - (i % 5) * 3000 for i in range(N)]),
    ],
)
def test_the_time_is_the_field_that_holds_times_in_about_their_order(name: str, values: list[Any]) -> None:
    assert verdict(values, name)[0] == "time"


def test_of_two_times_the_one_is_taken_that_is_called_so() -> None:
    events = [{"shipped": 1_767_000_000 + i, "event_time": 1_767_000_000 + i, "x": i % 9} for i in range(N)]
    assert {name: role for name, (role, _) in verdicts(events).items()} == {
        "shipped": "refused",
        "event_time": "time",
        "x": "feature",
    }


def test_dates_of_birth_are_not_the_time_of_events() -> None:
    rng = drawn()
    born = [f"{rng.randrange(1940, 2005)}-03-01T00:00:00Z" for _ in range(N)]
    assert verdict(born, "date")[0] == "refused"


def test_times_ahead_of_the_brokers_clock_are_not_taken_since_they_would_be_dead_letters() -> None:
    events = [{"ts": 1_767_000_000 + i, "x": i % 9} for i in range(N)]
    late = np.full(N, 1_767_000_000_000_000 - 86_400_000_000)
    assert verdicts(events, timestamps_us=late)["ts"][0] == "refused"
    assert verdicts(events, timestamps_us=late + 2 * 86_400_000_000)["ts"][0] == "time"


def test_the_id_is_what_differs_in_every_event_and_is_called_so() -> None:
    events = [{"payment_id": 10_000 + i, "x": i % 9, "trace": str(UUID(int=i * 10**30))} for i in range(N)]
    found = verdicts(events)
    assert found["payment_id"][0] == "id"
    assert found["trace"][0] == "refused"


def test_uuids_are_an_id_by_their_looks() -> None:
    assert verdict([str(UUID(int=i * 10**30)) for i in range(N)], "trace")[0] == "id"


def test_the_key_is_the_field_that_the_logs_keys_are() -> None:
    events = [{"who": f"c{i % 5}", "customer_id": i % 50, "x": (i * 7) % 11} for i in range(N)]
    keyed = verdicts(events, keys=[f"c{i % 5}".encode() for i in range(N)])
    assert (keyed["who"][0], keyed["customer_id"][0]) == ("key", "refused")
    assert verdicts(events)["customer_id"][0] == "key"


def test_counters_are_followed_within_their_partition() -> None:
    halves = [batch([{"n": 10 * i + part, "x": i % 7} for i in range(N)], partition=part) for part in (0, 1)]
    found = assign_roles(sample_records(halves, "json"), NOW_US, max_future_us=0)
    assert {each.name: each.role for each in found.roles} == {"n": "refused", "x": "feature"}


def test_the_share_of_events_with_all_features_is_told() -> None:
    rng = drawn()
    names = [f"f{j}" for j in range(10)]
    events = [{name: rng.random() for name in names if i % 100 != names.index(name)} for i in range(N)]
    found = judge(events)
    assert len(found.names("feature")) == 10
    assert found.complete_share == pytest.approx(0.9)


def test_lists_of_numbers_have_numbered_features() -> None:
    rng = drawn()
    sample = sample_of([[rng.random(), rng.random()] for _ in range(N)])
    assert sample.unnamed
    assert assign_roles(sample, NOW_US, max_future_us=0).names("feature") == ("x0", "x1")


def test_cells_of_a_csv_are_read_as_what_they_say() -> None:
    rng = drawn()
    columns = {
        "x": [f"{rng.random():.4f}" for _ in range(N)],
        "n": [str(i) for i in range(N)],
        "ok": [rng.choice(["True", "False"]) for _ in range(N)],
        "gap": ["" if i % 2 else "1.5" for i in range(N)],
        "ts": [f"2026-01-01T00:{i // 60:02d}:{i % 60:02d}Z" for i in range(N)],
    }
    table = Table(columns=columns, n_rows=N)
    found = assign_roles(sample_records([batch(table)], "json"), NOW_US, max_future_us=0)
    assert {each.name: each.role for each in found.roles} == {
        "x": "feature",
        "n": "refused",
        "ok": "refused",
        "gap": "refused",
        "ts": "time",
    }


def test_records_that_are_no_events_are_counted_by_reason() -> None:
    raw = batch([{"x": 1}])
    broken = RawBatch(
        partition=raw.partition,
        begin=0,
        end=4,
        offsets=np.arange(4),
        values=[*raw.values, b"?", None, b'"text"'],  # type: ignore[misc]
    )
    sample = sample_records([broken], "json")
    assert (sample.n_events, dict(sample.rejected)) == (1, {"not_json": 1, "empty": 1, "not_an_object": 1})


def test_the_rate_and_the_lateness_are_measured_on_the_events_own_time() -> None:
    events = [{"ts": 1_767_000_000 + i / 4 - (30 if i % 20 == 0 else 0), "x": i % 9} for i in range(N)]
    sample = sample_of(events)
    rate_s, late_us = estimate_volume(sample, assign_roles(sample, NOW_US, max_future_us=0))
    assert rate_s == pytest.approx(4, rel=0.4)
    assert late_us == pytest.approx(30e6, rel=0.05)


def test_a_bulk_load_without_times_tells_no_rate() -> None:
    sample = sample_of([{"x": i % 9} for i in range(N)], timestamps_us=np.full(N, NOW_US))
    assert estimate_volume(sample, assign_roles(sample, NOW_US, max_future_us=0)) == (None, 0)
