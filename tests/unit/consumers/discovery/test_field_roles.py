"""Assignment of roles to the fields of a sample, with reasons."""

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
from consumers.discovery.field_roles import FieldRoles, assign_roles
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


def field_roles(events: Sequence[Any], **others: Any) -> FieldRoles:
    return assign_roles(sample_of(events, **others), NOW_US, max_future_us=300_000_000)


def roles_by_name(events: Sequence[Any], **others: Any) -> dict[str, tuple[str, str]]:
    return {each.name: (each.role, each.reason) for each in field_roles(events, **others).roles}


def role_of(values: Sequence[Any], name: str = "x") -> tuple[str, str]:
    """Return the role and the reason of one field next to an ordinary feature."""
    return roles_by_name([{name: value, "other": (i * 7919) % 13 + 0.5} for i, value in enumerate(values)])[name]


def seeded_random(seed: int = 1, n: int = N) -> random.Random:
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
def test_measurement_is_a_feature(values: list[Any]) -> None:
    assert role_of(values)[0] == "feature"


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
    ("decimal commas", [f"{_RNG.random():.2f}".replace(".", ",") for _ in range(N)], "numbers with a decimal comma"),
    ("thousands", [f"{_RNG.randrange(10**6) + 0.5:,}" for _ in range(N)], "numbers with thousands separators"),
    ("units", [f"{_RNG.random():.2f} kW" for _ in range(N)], "numbers with a unit"),
    ("present in half", [_RNG.random() if i % 2 else None for i in range(N)], "missing in "),
    ("lists", [[1, 2] for _ in range(N)], "a nested list"),
    ("mixed", [1.5 if i % 10 else "n/a" for i in range(N)], "a number in only 90% .*text in 10%"),
    ("always null", [None] * N, "null in every event"),
    ("infinite", [1e39 if i % 10 == 0 else 1.0 * i for i in range(N)], "a number in only 90% .*not finite"),
)


@pytest.mark.parametrize(("values", "reason"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_non_descriptive_field_is_refused_with_the_reason(values: list[Any], reason: str) -> None:
    role, actual = role_of(values)
    assert role == "refused"
    assert re.search(reason, actual), actual


@pytest.mark.parametrize("name", ["customer_id", "userId", "ID", "merchant-id", "device.id"])
def test_integers_with_the_name_of_an_identifier_are_not_features(name: str) -> None:
    rng = seeded_random()
    events = [
        {name: rng.randrange(20), "k": f"k{i % 7}", "user_key": f"u{i % 40}", "y": rng.random()} for i in range(N)
    ]
    assert roles_by_name(events)[name][0] in {"refused", "key"}


@pytest.mark.parametrize("name", ["paid", "grid", "humid", "bid"])
def test_name_that_only_ends_in_the_same_letters_is_not_an_identifier(name: str) -> None:
    rng = seeded_random()
    assert role_of([rng.randrange(20) for _ in range(N)], name)[0] == "feature"


def test_nested_fields_have_dotted_names_in_any_script() -> None:
    rng = seeded_random()
    found = roles_by_name(
        [{"card": {"age": rng.random()}, "größe": rng.random(), "温度": rng.random()} for _ in range(N)]
    )
    assert {name for name, (role, _) in found.items() if role == "feature"} == {"card.age", "größe", "温度"}


def test_name_that_no_setting_can_express_is_refused() -> None:
    rng = seeded_random()
    assert "empty part" in role_of([rng.random() for _ in range(N)], "a..b")[1]


def test_numbers_of_a_single_event_are_features() -> None:
    found = roles_by_name([{"x": 1, "name": "n", "ok": True}])
    assert {name: role for name, (role, _) in found.items()} == {"x": "feature", "name": "refused", "ok": "refused"}
    assert "the same value in every event" in found["x"][1]


def test_empty_sample_has_no_fields() -> None:
    assert field_roles([]).roles == ()


def test_no_field_is_a_feature_if_all_are_refused() -> None:
    found = field_roles([{"a": "x", "b": True, "c": 4, "n": i} for i in range(N)])
    assert found.names("feature") == ()


@pytest.mark.slow
def test_roles_of_500_fields_are_assigned_within_seconds() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(1_000, 500)).round(4).tolist()
    began = time.monotonic()
    found = field_roles([{f"f{j}": cell for j, cell in enumerate(row)} for row in rows])
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
def test_time_field_holds_times_nearly_in_order(name: str, values: list[Any]) -> None:
    assert role_of(values, name)[0] == "time"


def test_time_field_with_the_better_name_is_selected() -> None:
    events = [{"shipped": 1_767_000_000 + i, "event_time": 1_767_000_000 + i, "x": i % 9} for i in range(N)]
    assert {name: role for name, (role, _) in roles_by_name(events).items()} == {
        "shipped": "refused",
        "event_time": "time",
        "x": "feature",
    }


def test_dates_of_birth_are_not_the_event_time() -> None:
    rng = seeded_random()
    born = [f"{rng.randrange(1940, 2005)}-03-01T00:00:00Z" for _ in range(N)]
    assert role_of(born, "date")[0] == "refused"


def test_field_ahead_of_the_broker_timestamps_is_not_the_time_field() -> None:
    events = [{"ts": 1_767_000_000 + i, "x": i % 9} for i in range(N)]
    late = np.full(N, 1_767_000_000_000_000 - 86_400_000_000)
    assert roles_by_name(events, timestamps_us=late)["ts"][0] == "refused"
    assert roles_by_name(events, timestamps_us=late + 2 * 86_400_000_000)["ts"][0] == "time"


def test_id_field_is_distinct_in_every_event_and_has_an_id_name() -> None:
    events = [{"payment_id": 10_000 + i, "x": i % 9, "trace": str(UUID(int=i * 10**30))} for i in range(N)]
    found = roles_by_name(events)
    assert found["payment_id"][0] == "id"
    assert found["trace"][0] == "refused"


def test_uuids_are_an_id_by_their_format() -> None:
    assert role_of([str(UUID(int=i * 10**30)) for i in range(N)], "trace")[0] == "id"


def test_key_field_equals_the_record_keys() -> None:
    events = [{"who": f"c{i % 5}", "customer_id": i % 50, "x": (i * 7) % 11} for i in range(N)]
    keyed = roles_by_name(events, keys=[f"c{i % 5}".encode() for i in range(N)])
    assert (keyed["who"][0], keyed["customer_id"][0]) == ("key", "refused")
    assert roles_by_name(events)["customer_id"][0] == "key"


def test_counters_are_detected_within_each_partition() -> None:
    halves = [batch([{"n": 10 * i + part, "x": i % 7} for i in range(N)], partition=part) for part in (0, 1)]
    found = assign_roles(sample_records(halves, "json"), NOW_US, max_future_us=0)
    assert {each.name: each.role for each in found.roles} == {"n": "refused", "x": "feature"}


def test_share_of_events_with_all_features_is_computed() -> None:
    rng = seeded_random()
    names = [f"f{j}" for j in range(10)]
    events = [{name: rng.random() for name in names if i % 100 != names.index(name)} for i in range(N)]
    found = field_roles(events)
    assert len(found.names("feature")) == 10
    assert found.complete_share == pytest.approx(0.9)


def test_lists_of_numbers_have_numbered_features() -> None:
    rng = seeded_random()
    sample = sample_of([[rng.random(), rng.random()] for _ in range(N)])
    assert sample.unnamed
    assert assign_roles(sample, NOW_US, max_future_us=0).names("feature") == ("x0", "x1")


def test_csv_cells_are_parsed_by_their_content() -> None:
    rng = seeded_random()
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


def test_rejected_records_are_counted_by_reason() -> None:
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
