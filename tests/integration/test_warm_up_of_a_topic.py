"""Warm-up on a real broker, of a topic with fewer events than configured."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from config.streams import StreamSettings
from consumers.kafka.source import KafkaSource
from monitor.models.warm_up import WarmUp
from monitor.models.warm_up_progress import format_progress
from monitor.pipeline.sources import register_sources, stored_positions
from storage.control.models import ModelRecord, ModelStore
from storage.control.warm_up import WarmUpProgress
from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from storage.ledger.ledger import Ledger
from storage.queries.status import load_stream_status
from tests.daemon.events import BurstStream, produce_records
from tests.integration.control.worker_bench import count_rows
from tests.servers.kafka import KafkaServer
from tests.servers.records import open_producer

RECORDS = BurstStream(events=200, seconds=100).records()
MINUTE = 60_000_000
TIMEOUT_S = 60.0


class BackgroundWarmUp:
    """A warm-up in a separate thread, which a test can stop."""

    def __init__(
        self, db: Database, server: KafkaServer, topic: str, *, timeout_s: float, features: object = "auto"
    ) -> None:
        settings = StreamSettings.model_validate(
            {
                "source": {"type": "kafka", "topics": [topic]},
                "event": {"time": {"field": "ts"}, "id": "id", "features": features},
                "model": {"warm_up": 10_000, "n_components": 1},
                "threshold": {"percentile": 95},
            }
        )
        ledger = Ledger(db)
        stream_id = ledger.open_stream("payments", MINUTE, 10 * MINUTE).id
        self._db, self._stream_id = db, stream_id
        self.model: ModelRecord | None = None
        self.stop = threading.Event()
        source = KafkaSource([topic], [server.bootstrap])

        def run() -> None:
            try:
                register_sources(ledger, "payments", stream_id, source, settings)
                warm_up = WarmUp(
                    "payments",
                    stream_id,
                    settings,
                    ModelStore(db),
                    stop=self.stop,
                    renew=lambda: True,
                    timeout_s=timeout_s,
                )
                self.model = warm_up.run(source, stored_positions(ledger, stream_id))
            finally:
                source.close()

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def wait_for(self, reached: Callable[[WarmUpProgress], bool]) -> WarmUpProgress:
        """Wait for a stored progress, as `outrider status` reads it."""
        end_s = time.monotonic() + TIMEOUT_S
        while time.monotonic() < end_s:
            status = load_stream_status(self._db, self._stream_id, lease="control:payments")
            progress = WarmUpProgress.from_details(status.details)
            if reached(progress):
                return progress
            time.sleep(0.05)
        raise AssertionError(progress)

    def end(self) -> ModelRecord | None:
        """Wait for the end of the warm-up and return the model."""
        self.thread.join(TIMEOUT_S)
        assert not self.thread.is_alive()
        return self.model


@pytest.fixture
def db(tmp_path: Path) -> Database:
    made = Database(f"sqlite:///{tmp_path / 'outrider.db'}")
    upgrade(made)
    return made


def test_warm_up_fits_on_the_available_events_after_the_timeout(
    db: Database, kafka_server: KafkaServer, kafka_topic: Callable[..., str]
) -> None:
    topic = kafka_topic(2)
    produce_records(kafka_server, topic, RECORDS[:120], 2)
    model = BackgroundWarmUp(db, kafka_server, topic, timeout_s=2.0).end()
    assert model is not None
    assert model.summary["events"] == 120


def test_warm_up_logs_missing_events_and_fits_once_they_arrive(
    db: Database,
    kafka_server: KafkaServer,
    kafka_topic: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    topic = kafka_topic(1)
    caplog.set_level(logging.WARNING, "monitor.models.warm_up")
    logged = threading.Event()
    caplog.handler.addFilter(lambda record: logged.set() or True if "missing" in record.getMessage() else True)
    run = BackgroundWarmUp(db, kafka_server, topic, timeout_s=0.5)
    try:
        assert logged.wait(TIMEOUT_S), "an empty topic does not end it"
        assert "no usable event after" in caplog.text
        assert "a model needs at least 50, so 50 are missing: waiting for them" in caplog.text
        produce_records(kafka_server, topic, RECORDS[:60], 1)
        model = run.end()
    finally:
        run.stop.set()
        run.end()
    assert model is not None
    assert 50 <= model.summary["events"] <= 60


def test_rejected_records_are_counted_and_named_while_no_event_is_usable(
    db: Database,
    kafka_server: KafkaServer,
    kafka_topic: Callable[..., str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    topic = kafka_topic(2)
    caplog.set_level(logging.WARNING, "monitor.models.warm_up")
    produce_records(kafka_server, topic, [*RECORDS[:59], b"{"], 2)
    run = BackgroundWarmUp(db, kafka_server, topic, timeout_s=TIMEOUT_S, features=["x0", "x1", "X_2"])
    try:
        progress = run.wait_for(lambda stored: stored.rejected == 60 and stored.caught_up)
    finally:
        run.stop.set()
        assert run.end() is None
    assert (progress.events, progress.records) == (0, 60)
    assert [(each.reason, each.n, each.hint) for each in progress.rejections] == [
        ("missing_feature", 59, "the field nearest to 'X_2' is 'x2'"),
        ("not_json", 1, None),
    ]
    assert "missing_feature" in caplog.text
    assert "the field nearest to 'X_2' is 'x2'" in caplog.text
    assert Ledger(db).active_sources(1)[0].next_offset == 0
    assert count_rows(db, "dead_letters") == 0


def test_progress_of_a_topic_that_was_read_to_its_end_has_an_estimate(
    db: Database, kafka_server: KafkaServer, kafka_topic: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    topic = kafka_topic(1)
    caplog.set_level(logging.INFO, "monitor.models.warm_up")
    hour_ago_ms = (time.time_ns() // 1_000_000) - 3_600_000
    with open_producer(kafka_server) as writer:
        for i, record in enumerate(RECORDS[:37]):
            writer.send(topic, record, timestamp_ms=hour_ago_ms + i * 90_000)
        writer.flush()
    run = BackgroundWarmUp(db, kafka_server, topic, timeout_s=TIMEOUT_S)
    try:
        progress = run.wait_for(lambda stored: stored.caught_up and stored.events_per_s is not None)
    finally:
        run.stop.set()
        run.end()
    assert "37 of 10,000 events, caught up; at 37 events/h this takes 11 days" in format_progress(progress)
    assert "37 of 10,000 events, caught up; at 37 events/h this takes 11 days" in caplog.text


def test_model_does_not_depend_on_rejected_records_that_arrive_while_it_waits(
    db: Database, kafka_server: KafkaServer, kafka_topic: Callable[..., str]
) -> None:
    topic = kafka_topic(2)
    produce_records(kafka_server, topic, [b"{"] * 20, 2)
    run = BackgroundWarmUp(db, kafka_server, topic, timeout_s=0.5)
    try:
        run.wait_for(lambda stored: stored.rejected == 20)
        produce_records(kafka_server, topic, RECORDS[:60], 2)
        model = run.end()
    finally:
        run.stop.set()
        run.end()
    assert model is not None
    assert model.summary["events"] >= 50
    assert model.summary["refused"] == 20
