"""Field names with any characters and every compression codec, through Kafka, the daemon and both databases."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from tests.daemon.events import START_US
from tests.daemon.process import DaemonProcess
from tests.daemon.settings import STREAM, kafka_settings
from tests.daemon.stored import StoredRows
from tests.servers.kafka import KafkaServer
from tests.servers.records import produce

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

NAMES = ('http_requests{code="200"}', "back\\slash", "tab\tline\n'é'")
CODECS = (None, "gzip", "snappy", "lz4", "zstd")
EVENTS_PER_CODEC = 400


def named_events() -> list[bytes]:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(len(CODECS) * EVENTS_PER_CODEC, len(NAMES))).round(4).tolist()
    return [
        json.dumps({'t"s': START_US + i * 100_000, **dict(zip(NAMES, row, strict=True))}).encode()
        for i, row in enumerate(rows)
    ]


def test_fields_with_quotes_in_batches_of_every_codec_are_scored(
    kafka_server: KafkaServer,
    kafka_topic: Callable[..., str],
    stored: StoredRows,
    run_daemon: Callable[..., DaemonProcess],
) -> None:
    topic, events = kafka_topic(), named_events()
    for i, codec in enumerate(CODECS):
        own = events[i * EVENTS_PER_CODEC : (i + 1) * EVENTS_PER_CODEC]
        produce(kafka_server, topic, own, compression_type=codec)
    event = {"time": {"field": 't"s'}, "features": "auto"}
    settings = kafka_settings(stored.url, kafka_server.bootstrap, topic, event=event)
    assert list(settings["streams"]) == [STREAM]
    daemon = run_daemon(settings)
    daemon.wait_until(lambda: stored.count("scores") == len(events), "all events are scored")
    assert daemon.terminate() == 0
    rows = stored.dump()
    assert rows["dead_letters"] == []
    assert rows["gaps"] == []
    assert [json.loads(names) for *_, names in rows["models"]] == [list(NAMES)]
