"""Training events: reproducible selection, end of reading, labels, and the fit on them."""

import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from config.errors import BrokerUnavailable, ConfigError, ModelError
from config.streams import ModelSettings, StreamSettings
from consumers.batch import Partition, Position
from consumers.files.source import FileSource
from consumers.source import Source
from monitor.models import training_events as training_module
from monitor.models.fitting import encode_labels, fit_model
from monitor.models.training_events import TrainingReader
from monitor.models.training_set import TrainingSet, min_training_events
from tests.unit.consumers.memory_source import MemorySource

T0_S = 1_767_225_600
STREAM = StreamSettings.model_validate(
    {"source": {"type": "synthetic"}, "event": {"time": {"field": "ts", "unit": "s"}}}
)
NAMED = STREAM.model_copy(update={"event": STREAM.event.model_copy(update={"features": ("x", "y")})})


def partition(number: int) -> Partition:
    return Partition(topic="t", partition=number)


def record(number: int, i: int) -> bytes:
    return json.dumps({"x": number + i / 1e4, "y": i % 7, "ts": T0_S + 3 * i + number}).encode()


def logs(*lengths: int) -> dict[Partition, list[bytes]]:
    return {partition(p): [record(p, i) for i in range(n)] for p, n in enumerate(lengths)}


def reader(source: Source, wanted: int | None, stream: StreamSettings = NAMED) -> TrainingReader:
    starts = {each.partition: Position(next_offset=each.begin) for each in source.discover()}
    return TrainingReader(source, stream, starts, wanted=wanted, features=None)


def read(source: Source, wanted: int | None, stream: StreamSettings = NAMED, *, within_s: float = 30) -> TrainingSet:
    result = reader(source, wanted, stream).read(
        stop=lambda: False, deadline_s=time.monotonic() + within_s, progress=lambda n: None
    )
    assert result is not None
    return result


def rounded_features(training: TrainingSet) -> list[tuple[float, float]]:
    return [(round(float(x), 4), float(y)) for x, y in training.features]


@pytest.fixture(autouse=True)
def _no_end_check_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_module, "_END_CHECK_INTERVAL_S", 0.0)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=4), st.integers(1, 150), st.integers(0, 10**6))
@example([21, 0, 0, 4], 4, 0)
@example([2_000, 0, 1_200], 2_700, 1)
def test_selected_events_do_not_depend_on_the_speed_of_the_partitions(
    lengths: list[int], wanted: int, seed: int
) -> None:
    if sum(lengths) < 1:
        return
    rng = random.Random(seed)
    steady = read(MemorySource(logs(*lengths), ends=True), wanted)
    ragged = read(MemorySource(logs(*lengths), ends=True, amounts=lambda _: rng.choice([0, 1, 3, 20])), wanted)
    assert rounded_features(ragged) == rounded_features(steady)
    assert len(steady) == min(wanted, sum(lengths))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 60), min_size=2, max_size=4), st.integers(0, 10**6))
def test_topic_and_file_of_the_same_records_give_the_same_events(lengths: list[int], seed: int) -> None:
    rng = random.Random(seed)
    wanted = max(1, sum(lengths) * 2 // 3)
    if sum(lengths) < wanted:
        return
    growing = MemorySource(logs(*lengths), amounts=lambda _: rng.choice([0, 1, 3, 20]))
    assert rounded_features(read(growing, wanted)) == rounded_features(
        read(MemorySource(logs(*lengths), ends=True), wanted)
    )


def test_each_partition_contributes_the_same_number_of_first_events() -> None:
    result = read(MemorySource(logs(1000, 1000, 10), ends=True), 210)
    by_partition = [sum(int(x) == p for x, _ in rounded_features(result)) for p in range(3)]
    assert by_partition == [100, 100, 10]


def test_events_are_in_order_of_event_time() -> None:
    result = read(MemorySource(logs(40, 40), ends=True), 60)
    times = [3 * round((x - int(x)) * 1e4) + int(x) for x, _ in rounded_features(result)]
    assert times == sorted(times)


def test_all_events_are_read_without_a_number() -> None:
    result = read(MemorySource(logs(30, 7), ends=True), None)
    assert (len(result), result.exhausted) == (37, True)


def test_rejected_records_are_counted_separately() -> None:
    values = [b"{" if i % 3 == 0 else record(0, i) for i in range(300)]
    result = read(MemorySource({partition(0): values}, ends=True), 100)
    assert len(result) == 100
    assert result.rejected >= 50


def test_feature_names_are_discovered_in_the_first_records() -> None:
    result = read(MemorySource(logs(30, 30), ends=True), 40, STREAM)
    assert result.names == ("x", "y")


def test_empty_input_is_an_error(tmp_path: Path) -> None:
    empty = tmp_path / "events.jsonl"
    empty.write_text("")
    with pytest.raises(ConfigError, match="is the input empty"):
        read(FileSource(empty), 100, STREAM)
    with pytest.raises(ConfigError, match="is the input empty"):
        read(MemorySource(logs(0, 0), ends=True), 100, STREAM)


def test_empty_input_with_known_names_has_no_events() -> None:
    starts = {partition(0): Position(next_offset=0)}
    events_reader = TrainingReader(MemorySource(logs(0), ends=True), NAMED, starts, wanted=100, features=("x", "y"))
    result = events_reader.read(stop=lambda: False, deadline_s=time.monotonic() + 20, progress=lambda n: None)
    assert result is not None
    assert (len(result), result.names, result.exhausted) == (0, ("x", "y"), True)


def test_stop_aborts_reading() -> None:
    calls = []

    def stop() -> bool:
        calls.append(1)
        return len(calls) > 3

    events_reader = reader(MemorySource(logs(5)), 1000)
    assert events_reader.read(stop=stop, deadline_s=None, progress=lambda n: None) is None


def test_progress_counts_records_until_the_features_are_known() -> None:
    counts: list[int] = []
    events_reader = reader(MemorySource(logs(5, 0)), 1000, STREAM)
    events_reader.read(stop=lambda: len(counts) > 3, deadline_s=None, progress=counts.append)
    assert counts[-1] == 5


def test_deadline_returns_the_events_read_and_reading_can_continue() -> None:
    log = logs(400, 30)
    open_end = {partition(0): 50, partition(1): 30}
    source = MemorySource({each: log[each][: open_end[each]] for each in log})
    events_reader = reader(source, 200)
    early = events_reader.read(stop=lambda: False, deadline_s=time.monotonic() + 0.3, progress=lambda n: None)
    assert early is not None
    assert (len(early), early.exhausted) == (80, False)
    source._logs[partition(0)] = log[partition(0)]  # records produced meanwhile
    late = events_reader.read(stop=lambda: False, deadline_s=time.monotonic() + 20, progress=lambda n: None)
    assert late is not None
    assert rounded_features(late) == rounded_features(read(MemorySource(log, ends=True), 200))


def test_unavailable_broker_is_retried() -> None:
    class Shaky(MemorySource):
        refusals = 3

        def _refuse(self) -> None:
            type(self).refusals -= 1
            if type(self).refusals >= 0:
                raise BrokerUnavailable("the broker is away")

        def caught_up(self, partitions: object) -> frozenset[Partition]:
            self._refuse()
            return super().caught_up(partitions)  # type: ignore[arg-type]

    result = read(Shaky(logs(5, 60)), 50)
    assert len(result) == 50


def model_settings(**changes: object) -> ModelSettings:
    return ModelSettings.model_validate({"n_components": 1} | changes)


def training_set(n: int, *, features: np.ndarray | None = None) -> TrainingSet:
    drawn = np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32)
    return TrainingSet(features=drawn if features is None else features, names=("x", "y"), rejected=3, exhausted=True)


def test_too_few_events_are_an_error_with_the_minimum() -> None:
    needed = min_training_events(2)
    with pytest.raises(ModelError, match=f"at least {needed} events, there are {needed - 1} \\(3 records"):
        fit_model(training_set(needed - 1), model_settings())
    assert len(fit_model(training_set(needed), model_settings()).reference) == needed


def test_reference_energies_are_ascending_and_cover_every_event() -> None:
    fitted = fit_model(training_set(200), model_settings())
    assert len(fitted.reference) == 200
    assert (np.diff(fitted.reference) >= 0).all()
    assert fitted.new_model.summary["reference_n"] == 200


def test_contamination_excludes_the_largest_reference_energies() -> None:
    features = np.random.default_rng(0).normal(size=(400, 2)).astype(np.float32)
    features[::20] += 60
    fitted = fit_model(training_set(400, features=features), model_settings(contamination=0.05))
    assert len(fitted.reference) == 380
    assert fitted.reference.max() < 20


def test_missing_feature_is_replaced_by_the_column_mean_in_the_fit() -> None:
    features = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    features[::10, 0] = np.nan
    fitted = fit_model(training_set(200, features=features), model_settings())
    assert fitted.new_model.summary["feature_means"][0] == pytest.approx(np.nanmean(features[:, 0]), abs=1e-6)
    assert np.isfinite(fitted.reference).all()


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("1", "0", None, "1"), [1, 0, -1, 1]),
        (("b", "a", "", "b"), [1, 0, -1, 1]),
        (("2.0", "5", None, "2"), [2, 5, -1, 2]),
    ],
)
def test_integer_labels_are_unchanged_and_other_labels_are_numbered(
    texts: Sequence[str | None], expected: list[int]
) -> None:
    labelled = TrainingSet(
        features=np.zeros((4, 1), np.float32), names=("x",), rejected=0, exhausted=True, labels=tuple(texts)
    )
    assert encode_labels(labelled, "kind").tolist() == expected


def test_error_names_a_label_that_no_event_has() -> None:
    with pytest.raises(ModelError, match="--label kind: no event"):
        encode_labels(training_set(4), "kind")


def misnamed(i: int) -> bytes:
    return json.dumps({"x": float(i), "Y": i % 7, "ts": T0_S + i}).encode()


@pytest.mark.parametrize("stream", [NAMED, STREAM])
def test_rejected_records_are_counted_by_reason_before_there_are_enough_events(stream: StreamSettings) -> None:
    good = [] if stream is NAMED else [record(0, i) for i in range(5)]
    values = [*good, b"{", *(misnamed(i) for i in range(3 if stream is NAMED else 0))]
    events_reader = reader(MemorySource({partition(0): values, partition(1): []}), 1_000, stream)
    assert events_reader.read(stop=lambda: events_reader.caught_up, deadline_s=None, progress=lambda n: None) is None
    counts = events_reader.rejections()
    found = {(group.reason, group.n, group.hint) for group in counts.groups()}
    absent = ("missing_feature", 3, "the field nearest to 'y' is 'Y'")
    assert found == {("not_json", 1, None)} | ({absent} if stream is NAMED else set())
    assert (counts.n_rejected, events_reader.n_records) == (len(values) - len(good), len(values))


def test_records_without_any_feature_are_counted_before_the_features_are_known() -> None:
    events_reader = reader(MemorySource({partition(0): [b"{", b'{"name": "a"}', b'{"name": "b"}']}), 1_000, STREAM)
    assert events_reader.read(stop=lambda: events_reader.caught_up, deadline_s=None, progress=lambda n: None) is None
    assert [(group.reason, group.n) for group in events_reader.rejections().groups()] == [
        ("missing_feature", 2),
        ("not_json", 1),
    ]


def test_a_wrong_time_field_is_counted_before_the_features_are_known() -> None:
    stream = StreamSettings.model_validate({"source": {"type": "synthetic"}, "event": {"time": {"field": "time"}}})
    events_reader = reader(MemorySource(logs(20)), 1_000, stream)
    assert events_reader.read(stop=lambda: events_reader.caught_up, deadline_s=None, progress=lambda n: None) is None
    group = events_reader.rejections().groups()[0]
    assert (group.reason, group.n, group.detail) == ("no_time", 20, "time: absent")


def test_training_set_lists_the_rejected_records() -> None:
    values = [misnamed(i) if i % 3 == 0 else record(0, i) for i in range(90)]
    result = read(MemorySource({partition(0): values}, ends=True), 60)
    assert [(group.reason, group.n) for group in result.rejections] == [("missing_feature", 30)]
    assert result.rejected == 30


def test_reader_that_does_not_wait_returns_the_events_of_the_logs() -> None:
    source = MemorySource(logs(40, 0, 13))
    starts = {each.partition: Position(next_offset=0) for each in source.discover()}
    for stream in (NAMED, STREAM):
        events_reader = TrainingReader(MemorySource(logs(40, 0, 13)), stream, starts, wanted=1_000, waits=False)
        result = events_reader.read(stop=lambda: False, deadline_s=time.monotonic() + 20, progress=lambda n: None)
        assert result is not None
        assert (len(result), result.exhausted) == (53, True)


def test_reader_has_caught_up_once_the_logs_are_read() -> None:
    seen: list[bool] = []
    events_reader = reader(MemorySource(logs(5, 5), amounts=lambda _: 1), 1_000)
    events_reader.read(
        stop=lambda: seen.append(events_reader.caught_up) or events_reader.caught_up,
        deadline_s=None,
        progress=lambda n: None,
    )
    assert not seen[0]
    assert events_reader.n_records == 10


def test_records_without_any_feature_do_not_end_the_reading_at_the_deadline() -> None:
    log = [b"{"] * 70 + [record(0, i) for i in range(100)]
    source = MemorySource({partition(0): log[:70]})
    events_reader = reader(source, 80, STREAM)
    early = events_reader.read(stop=lambda: False, deadline_s=time.monotonic() + 0.1, progress=lambda n: None)
    assert early is not None
    assert (len(early), early.rejected, early.exhausted) == (0, 70, False)
    source._logs[partition(0)] = log  # records produced meanwhile
    late = events_reader.read(stop=lambda: False, deadline_s=time.monotonic() + 20, progress=lambda n: None)
    assert late is not None
    assert (len(late), late.names, late.rejected) == (80, ("x", "y"), 70)
