"""Warm-up: the first model of a stream, stored once, without moving a position."""

import threading
from pathlib import Path

import pytest

from config.errors import ModelError, StorageUnavailable
from config.streams import StreamSettings
from consumers.files.source import FileSource
from consumers.synthetic.plan import SyntheticPlan
from consumers.synthetic.source import SyntheticSource
from monitor.models.warm_up import WarmUp
from monitor.pipeline.sources import stored_positions
from storage.control.models import ModelStore
from storage.database.engine import Database
from storage.ledger.ledger import Ledger
from storage.ledger.sources import NewSource
from tests.integration.control.worker_bench import MINUTE, T0, count_rows, encode_event, fetch_rows

SETTINGS = StreamSettings.model_validate(
    {
        "source": {"type": "synthetic"},
        "event": {"time": {"field": "ts", "unit": "s"}},
        "model": {"warm_up": 200, "n_components": 1},
        "threshold": {"percentile": 95},
    }
)


def open_stream_of(db: Database, source: FileSource | SyntheticSource) -> int:
    stream = Ledger(db).open_stream("payments", MINUTE, 10 * MINUTE)
    new_sources = [
        NewSource(topic=each.partition.topic, partition=each.partition.partition, identity=each.identity, next_offset=0)
        for each in source.discover()
    ]
    Ledger(db).register_sources(stream.id, new_sources)
    return stream.id


def make_synthetic(partitions: int = 2) -> SyntheticSource:
    return SyntheticSource(SyntheticPlan(seed=3, partitions=partitions), events=600, speed=0, start_us=T0)


def warm_up(db: Database, stream_id: int, settings: StreamSettings = SETTINGS) -> WarmUp:
    return WarmUp("payments", stream_id, settings, ModelStore(db), stop=threading.Event(), renew=lambda: True)


def run(db: Database, stream_id: int, source: FileSource | SyntheticSource, of: WarmUp | None = None) -> object:
    settings = SETTINGS.model_copy(update={"event": SETTINGS.event.model_copy(update={"time": None})})
    by_broker = isinstance(source, SyntheticSource)
    of = of or warm_up(db, stream_id, settings if by_broker else SETTINGS)
    return of.run(source, stored_positions(Ledger(db), stream_id))


def test_a_warm_up_stores_a_model_and_a_threshold_and_moves_no_position(db: Database) -> None:
    stream_id = open_stream_of(db, make_synthetic())
    assert run(db, stream_id, make_synthetic()) is not None
    model = ModelStore(db).active(stream_id)
    assert model is not None
    assert (model.version, model.summary["events"], model.summary["reference_n"]) == (1, 200, 200)
    assert [each.next_offset for each in Ledger(db).active_sources(stream_id)] == [0, 0]
    assert count_rows(db, "scores") == 0
    assert fetch_rows(db, "SELECT valid_from_us, computed_at_us FROM thresholds") == [(0, 0)]


def test_two_warm_ups_fit_the_same_model_and_the_first_is_stored(sqlite_db: Database) -> None:
    stream_id = open_stream_of(sqlite_db, make_synthetic())
    assert run(sqlite_db, stream_id, make_synthetic()) is not None
    first = fetch_rows(sqlite_db, "SELECT threshold, lower, upper, details FROM thresholds")
    assert run(sqlite_db, stream_id, make_synthetic()) is None
    assert count_rows(sqlite_db, "models") == 1
    another = Ledger(sqlite_db).open_stream("again", MINUTE, 10 * MINUTE).id
    Ledger(sqlite_db).register_sources(
        another,
        [
            NewSource(topic="synthetic", partition=each.partition.partition, identity=each.identity, next_offset=0)
            for each in make_synthetic().discover()
        ],
    )
    assert run(sqlite_db, another, make_synthetic()) is not None
    assert fetch_rows(sqlite_db, "SELECT threshold, lower, upper, details FROM thresholds ORDER BY id") == first * 2


def test_an_input_with_too_few_events_is_an_error_with_advice(sqlite_db: Database, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"".join(encode_event(T0 + i) + b"\n" for i in range(30)))
    stream_id = open_stream_of(sqlite_db, FileSource(file))
    with pytest.raises(
        ModelError, match="after 30 usable events, a model needs at least 50: fit one with `outrider fit"
    ):
        run(sqlite_db, stream_id, FileSource(file))
    assert count_rows(sqlite_db, "models") == 0


def test_a_stopped_warm_up_or_one_without_its_lease_stores_nothing(sqlite_db: Database) -> None:
    stream_id = open_stream_of(sqlite_db, make_synthetic())
    stop = threading.Event()
    stop.set()
    stopped = WarmUp("payments", stream_id, SETTINGS, ModelStore(sqlite_db), stop=stop, renew=lambda: True)
    lost = WarmUp("payments", stream_id, SETTINGS, ModelStore(sqlite_db), stop=threading.Event(), renew=lambda: False)
    assert run(sqlite_db, stream_id, make_synthetic(), stopped) is None
    assert run(sqlite_db, stream_id, make_synthetic(), lost) is None
    assert count_rows(sqlite_db, "models") == 0


def test_a_second_attempt_on_the_same_source_reads_the_same_events(sqlite_db: Database) -> None:
    source = make_synthetic()
    stream_id = open_stream_of(sqlite_db, source)
    calls = []

    def renew() -> bool:
        calls.append(1)
        if len(calls) == 2:
            raise StorageUnavailable("the database is unavailable")
        return True

    settings = SETTINGS.model_copy(update={"event": SETTINGS.event.model_copy(update={"time": None})})
    positions = stored_positions(Ledger(sqlite_db), stream_id)
    models = ModelStore(sqlite_db)
    first = WarmUp("payments", stream_id, settings, models, stop=threading.Event(), renew=renew)
    with pytest.raises(StorageUnavailable):
        first.run(source, positions)
    second = WarmUp("payments", stream_id, settings, models, stop=threading.Event(), renew=renew)
    assert second.run(source, positions, assigned=frozenset(positions)) is not None
    threshold = fetch_rows(sqlite_db, "SELECT threshold FROM thresholds")
    other = Ledger(sqlite_db).open_stream("again", MINUTE, 10 * MINUTE).id
    undisturbed = WarmUp("again", other, settings, models, stop=threading.Event(), renew=lambda: True)
    assert undisturbed.run(make_synthetic(), positions) is not None
    assert fetch_rows(sqlite_db, "SELECT threshold FROM thresholds ORDER BY id") == threshold * 2
