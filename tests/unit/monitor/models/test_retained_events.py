"""Training events from the log itself: the newest ones, and those since a time."""

import json
import random
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import ConfigError
from config.streams import StreamSettings
from consumers.batch import Partition
from monitor.models.retained_events import RetainedEventsReader
from monitor.models.training_set import TrainingSet
from tests.unit.consumers.memory_source import MemorySource

T0_S = 1_767_225_600
STREAM = StreamSettings.model_validate(
    {"source": {"type": "synthetic"}, "event": {"time": {"field": "ts", "unit": "s"}}}
)
NAMED = STREAM.model_copy(update={"event": STREAM.event.model_copy(update={"features": ("x", "y")})})


def record(time_s: int) -> bytes:
    return json.dumps({"x": float(time_s), "y": time_s % 7, "ts": T0_S + time_s}).encode()


def logs(*times: list[int]) -> dict[Partition, list[bytes]]:
    return {Partition(topic="t", partition=p): [record(each) for each in column] for p, column in enumerate(times)}


def read(
    source: MemorySource, stream: StreamSettings = NAMED, *, last: int | None = None, since_s: int | None = None
) -> TrainingSet:
    since = None if since_s is None else timedelta(seconds=since_s)
    return RetainedEventsReader(source, stream).read(source.discover(), last=last, since=since)


def times_of(training: TrainingSet) -> list[int]:
    column = training.names.index("x")
    return [int(row[column]) for row in training.features]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.lists(st.integers(0, 3_000), max_size=350), min_size=1, max_size=3),
    st.integers(1, 200),
    st.integers(0, 10**6),
)
def test_newest_events_do_not_depend_on_the_speed_of_the_partitions(
    columns: list[list[int]], last: int, seed: int
) -> None:
    columns = [sorted(column) for column in columns]
    rng = random.Random(seed)
    if not any(columns):
        return
    ragged = read(MemorySource(logs(*columns), amounts=lambda _: rng.choice([0, 1, 3, 200])), last=last)
    assert times_of(ragged) == sorted(time for column in columns for time in column)[-last:]


@pytest.mark.parametrize("stream", [NAMED, STREAM])
def test_newest_events_are_in_order_of_event_time_over_all_partitions(stream: StreamSettings) -> None:
    source = MemorySource(logs(list(range(0, 600, 2)), list(range(1, 900, 3))))
    training = read(source, stream, last=150)
    assert times_of(training) == sorted([*range(0, 600, 2), *range(1, 900, 3)])[-150:]
    assert training.exhausted


def test_reading_goes_further_back_over_rejected_records() -> None:
    values = [record(i) for i in range(200)] + [b"{"] * 500
    training = read(MemorySource({Partition(topic="t", partition=0): values}), last=120)
    assert times_of(training) == list(range(80, 200))
    assert [(group.reason, group.n) for group in training.rejections] == [("not_json", 500)]


def test_all_retained_events_are_taken_if_there_are_fewer() -> None:
    assert times_of(read(MemorySource(logs([5, 6], [])), last=10_000)) == [5, 6]


def test_events_since_a_duration_count_back_from_the_latest_event() -> None:
    source = MemorySource(logs(list(range(1_000)), list(range(500))))
    assert times_of(read(source, since_s=100)) == list(range(899, 1_000))


def test_the_newest_events_since_a_duration_are_taken() -> None:
    assert times_of(read(MemorySource(logs(list(range(1_000)))), since_s=100, last=7)) == list(range(993, 1_000))


def test_a_log_without_records_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no record is retained"):
        read(MemorySource(logs([], [])), STREAM, last=10)
