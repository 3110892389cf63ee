"""Warm-up on a real broker, of a topic with fewer events than configured."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from config.streams import StreamSettings
from consumers.kafka.source import KafkaSource
from monitor.models.warm_up import WarmUp
from monitor.pipeline.sources import register_sources, stored_positions
from storage.control.models import ModelRecord, ModelStore
from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from storage.ledger.ledger import Ledger
from tests.daemon.events import BurstStream, produce_records
from tests.servers.kafka import KafkaServer

RECORDS = BurstStream(events=200, seconds=100).records()
MINUTE = 60_000_000
TIMEOUT_S = 60.0


class BackgroundWarmUp:
    """A warm-up in a separate thread, which a test can stop."""

    def __init__(self, db: Database, server: KafkaServer, topic: str, *, timeout_s: float) -> None:
        settings = StreamSettings.model_validate(
            {
                "source": {"type": "kafka", "topics": [topic]},
                "event": {"time": {"field": "ts"}, "id": "id"},
                "model": {"warm_up": 10_000, "n_components": 1},
                "threshold": {"percentile": 95},
            }
        )
        ledger = Ledger(db)
        stream_id = ledger.open_stream("payments", MINUTE, 10 * MINUTE).id
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
