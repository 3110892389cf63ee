"""Every record becomes a score or a dead letter with its reason.

One daemon with four streams reads topics with bad, transactional and compacted records; the tests check its rows.
"""

import json
import os
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.events import BurstStream, produce_records
from tests.daemon.process import DaemonProcess
from tests.daemon.settings import kafka_settings
from tests.daemon.stored import StoredRows
from tests.servers.kafka import KafkaServer
from tests.servers.postgres import PostgresServer
from tests.servers.process import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

GOOD = BurstStream(events=2_400, seconds=600).records()
DEAD_LETTER_FLOOD = 300
COPIES_OF_EACH = 3


def _event_with(**fields: object) -> bytes:
    event = json.loads(GOOD[1_200]) | fields
    return json.dumps({name: value for name, value in event.items() if value is not ...}).encode()


BAD: dict[str, list[bytes | None]] = {
    "not_json": [b"{", b"\xff\xfe", GOOD[0][:-1]],
    "not_an_object": [b"7", b'"text"', b"true"],
    "missing_feature": [_event_with(x1=...), _event_with(x1=None), b"{}"],
    "not_a_number": [_event_with(x0="1.5"), _event_with(x0=True), _event_with(x0=[1])],
    "not_finite": [_event_with(x2=1e39), _event_with(x2=float("nan")), _event_with(x2=float("-inf"))],
    "wrong_length": [b"[1, 2]", b"[]", b"[1, 2, 3, 4]"],
    "no_time": [_event_with(ts=...), _event_with(ts=None), b"[1, 2, 3]"],
    "bad_time": [_event_with(ts="yesterday"), _event_with(ts=-5), _event_with(ts={"at": 1})],
    "future_time": [_event_with(ts=4_000_000_000), _event_with(ts="2200-01-01T00:00:00Z"), _event_with(ts=int(9e15))],
    "too_large": [_event_with(note="x" * 5_000), b"[" * 5_000, b" " * 5_000],
    "empty": [None, b"", b"  "],
    "schema_registry_framing": [b"\x00\x00\x00\x00\x07" + GOOD[0], b"\x00", b"\x00{}"],
}
FLOATS_BAD: dict[str, list[bytes | None]] = {
    "wrong_length": [b"abc", struct.pack("<4f", 1, 2, 3, 4), struct.pack("<2f", 1, 2)],
    "not_finite": [struct.pack("<3f", 1, 2, float("nan")), struct.pack("<3f", float("inf"), 0, 0)],
    "empty": [None, b""],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """Names of the topics, with the offsets that a reader should find."""

    mixed: str
    floats: str
    transactions: str
    committed: list[int]
    compacted: str
    remaining: list[int]
    ends: int


@pytest.fixture(scope="module")
def topics(kafka_server: KafkaServer) -> Topics:
    """Topics with every kind of record, filled once for both databases."""
    tag = os.urandom(4).hex()
    mixed, floats, transactions, compacted = (
        f"{kind}-{tag}" for kind in ("mixed", "floats", "transactions", "compact")
    )
    kafka_server.create_topic(mixed, 2)
    for name in (floats, transactions):
        kafka_server.create_topic(name)
    policy = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.001"}
    kafka_server.create_topic(compacted, 1, policy)
    _fill_mixed(kafka_server, mixed)
    _fill_floats(kafka_server, floats)
    committed = _fill_transactions(kafka_server, transactions)
    remaining = _fill_compacted(kafka_server, compacted)
    ends = sum(_ends(kafka_server, [mixed, floats, transactions, compacted]))
    return Topics(
        mixed=mixed,
        floats=floats,
        transactions=transactions,
        committed=committed,
        compacted=compacted,
        remaining=remaining,
        ends=ends,
    )


def _fill_mixed(server: KafkaServer, topic: str) -> None:
    """Produce every kind of bad record among good ones, a flood of one kind, and a batch that is damaged on disk."""
    bad = [record for records in BAD.values() for record in records]
    step = len(GOOD) // (2 * len(bad))
    records: list[bytes | None] = []
    for i, good in enumerate(GOOD):
        records.append(good)
        if i % step == 0 and i // step < len(bad):
            records.append(bad[i // step])
    produce_records(server, topic, [*records, *[b"flood"] * DEAD_LETTER_FLOOD], 2)
    # Separate batches, so that the damage affects only these records.
    produce_records(server, topic, [b"damaged on disk"] * 10, 1, linger_ms=2_000)
    produce_records(server, topic, [GOOD[-1]] * 10, 1, linger_ms=2_000)
    server.stop()
    segment = server.segments(topic, 0)[0]
    stored = bytearray(segment.read_bytes())
    stored[stored.index(b"damaged on disk")] ^= 0xFF
    segment.write_bytes(stored)
    server.start()


def _fill_floats(server: KafkaServer, topic: str) -> None:
    events = [json.loads(record) for record in GOOD]
    good = [struct.pack("<3f", event["x0"], event["x1"], event["x2"]) for event in events]
    bad = [record for records in FLOATS_BAD.values() for record in records]
    produce_records(server, topic, [*good[:1_000], *bad, *good[1_000:]], 1)


def _fill_transactions(server: KafkaServer, topic: str) -> list[int]:
    """Produce transactions of 100 events, every third aborted; return the offsets of the committed events."""
    from tests.servers.records import open_producer

    committed: list[int] = []
    with open_producer(server, transactional_id=topic) as writer:
        writer.init_transactions()
        for turn in range(24):
            writer.begin_transaction()
            sent = [writer.send(topic, record, partition=0) for record in GOOD[100 * turn : 100 * (turn + 1)]]
            writer.flush()
            if turn % 3 == 1:
                writer.abort_transaction()
            else:
                writer.commit_transaction()
                committed += [each.get(10).offset for each in sent]
    return committed


def _fill_compacted(server: KafkaServer, topic: str) -> list[int]:
    """Produce events of which most are overwritten under the same key; return the offsets that compaction leaves."""
    from tests.servers.records import produce

    keys = [b"%d" % (i if i % 3 == 0 else 1) for i in range(len(GOOD))]
    produce(server, topic, GOOD, keys=keys)
    remaining: list[int] = []

    def cleaned() -> bool:
        produce(server, topic, [GOOD[-1]], keys=[b"roll"])  # the cleaner does not touch the newest segment
        remaining[:] = _offsets(server, topic)
        return len(remaining) < len(GOOD) // 2

    wait_until(cleaned, within_s=120, what="the cleaner")
    # No more records are produced, but the cleaner may still run: wait until the offsets no longer change.
    samples: list[list[int]] = []

    def is_stable() -> bool:
        samples.append(_offsets(server, topic))
        time.sleep(0.5)  # several runs of the cleaner, which starts every 0.1 s
        return len(samples) > 3 and samples[-1] == samples[-4]

    wait_until(is_stable, within_s=60, what="the cleaner has nothing to do")
    return samples[-1]


def _offsets(server: KafkaServer, topic: str) -> list[int]:
    """Return the offsets that a plain consumer reads."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=server.bootstrap, enable_auto_commit=False)
    try:
        tp = TopicPartition(topic, 0)
        consumer.assign([tp])
        consumer.seek(tp, 0)
        end, offsets = consumer.end_offsets([tp])[tp], []
        while consumer.position(tp) < end:
            offsets += [record.offset for records in consumer.poll(timeout_ms=500).values() for record in records]
        return offsets
    finally:
        consumer.close()


def _ends(server: KafkaServer, topics: list[str]) -> list[int]:
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=server.bootstrap, isolation_level="read_committed")
    try:
        partitions = [TopicPartition(each, i) for each in topics for i in consumer.partitions_for_topic(each)]
        return list(consumer.end_offsets(partitions).values())
    finally:
        consumer.close()


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def stored_after_drain(
    request: pytest.FixtureRequest,
    kafka_server: KafkaServer,
    topics: Topics,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[StoredRows]:
    """Rows of a daemon that drained all topics and then stopped normally."""
    folder: Path = tmp_path_factory.mktemp("bad-input")
    url = f"sqlite:///{folder / 'outrider.db'}"
    server: PostgresServer | None = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        url = server.create_database()
    with closing(StoredRows(url)) as stored:
        with DaemonProcess(folder, _settings(url, kafka_server, topics)).start() as daemon:
            daemon.wait_until(lambda: stored.is_settled(topics.ends), "all topics are drained")
            assert daemon.terminate() == 0
        yield stored
    if server is not None:
        server.drop_database(url)


def _settings(url: str, server: KafkaServer, topics: Topics) -> dict[str, Any]:
    """Return one configuration with four streams, each with a model fitted to its first events."""
    event = {"time": {"field": "ts"}, "id": "id", "features": ["x0", "x1", "x2"], "max_size": "4KiB"}
    floats = {"format": "float32", "features": ["x0", "x1", "x2"]}
    events = {"mixed": event, "floats": floats, "transactions": event, "compacted": event}
    each = {
        name: kafka_settings(url, server.bootstrap, getattr(topics, name), event=events[name])["streams"]["payments"]
        | {"model": {"n_components": 1, "warm_up": 300}}
        for name in events
    }
    return kafka_settings(url, server.bootstrap, topics.mixed) | {"streams": each}


def scored(stored: StoredRows, stream: str) -> list[tuple[int, int]]:
    """Return the (partition, offset) pairs of the scores in order, including duplicates."""
    select = "SELECT partition, source_offset FROM score_history WHERE stream = :stream ORDER BY 1, 2"
    return [(partition, offset) for partition, offset in stored.rows(select, stream=stream)]


def dead_letter_reasons(stored: StoredRows, stream: str) -> Counter[str]:
    """Return the number of dead letters by reason."""
    select = "SELECT reason, sum(end_offset - source_offset) FROM dead_letter_history WHERE stream = :s GROUP BY 1"
    return Counter({reason: int(n) for reason, n in stored.rows(select, s=stream)})


def test_every_bad_record_is_a_dead_letter_with_its_reason(stored_after_drain: StoredRows) -> None:
    expected = Counter({reason: len(records) for reason, records in BAD.items()})
    expected["not_json"] += DEAD_LETTER_FLOOD
    expected["unreadable_batch"] += 10
    assert dead_letter_reasons(stored_after_drain, "mixed") == expected


def test_scores_and_dead_letters_add_up_to_the_records(stored_after_drain: StoredRows) -> None:
    bad = sum(map(len, BAD.values())) + DEAD_LETTER_FLOOD + 10
    assert len(scored(stored_after_drain, "mixed")) == len(set(scored(stored_after_drain, "mixed"))) == len(GOOD) + 10
    assert stored_after_drain.number("SELECT sum(next_offset) FROM positions p JOIN streams s ON s.id = p.stream_id "
                          "WHERE s.name = 'mixed'") == len(GOOD) + 10 + bad  # fmt: skip


def test_dead_letter_has_its_offset_its_error_and_its_first_bytes(stored_after_drain: StoredRows) -> None:
    select = """SELECT reason, detail, payload FROM dead_letter_history
        WHERE stream = 'mixed' AND reason IN ('not_a_number', 'too_large') ORDER BY reason, source_offset"""
    rows = stored_after_drain.rows(select)
    assert all(row[1].startswith("x0: ") for row in rows if row[0] == "not_a_number"), rows
    assert [bytes(row[2]) for row in rows if row[0] == "not_a_number"] == BAD["not_a_number"]
    assert {len(bytes(row[2])) for row in rows if row[0] == "too_large"} == {4_096}


def test_dead_letter_flood_opens_an_incident_and_stores_few_payloads(stored_after_drain: StoredRows) -> None:
    kinds = stored_after_drain.rows("SELECT kind FROM incident_history WHERE stream = 'mixed'")
    assert ("dead_letters",) in kinds
    n_payloads = stored_after_drain.number("SELECT count(payload) FROM dead_letter_history WHERE reason = 'not_json'")
    # The quota is 100 per source and minute; the flood may span two minutes.
    assert n_payloads < DEAD_LETTER_FLOOD


def test_future_time_does_not_move_the_watermark(stored_after_drain: StoredRows) -> None:
    newest = max(json.loads(record)["ts"] for record in GOOD)
    select = """SELECT max(p.watermark_us) FROM positions p JOIN streams s ON s.id = p.stream_id
        WHERE s.name = 'mixed'"""
    assert stored_after_drain.number(select) == newest


def test_bad_raw_floats_are_dead_letters_and_the_others_are_scored(
    stored_after_drain: StoredRows,
) -> None:
    assert dead_letter_reasons(stored_after_drain, "floats") == Counter(
        {reason: len(records) for reason, records in FLOATS_BAD.items()}
    )
    assert len(scored(stored_after_drain, "floats")) == len(GOOD)


def test_exactly_the_committed_events_of_transactions_are_scored(
    stored_after_drain: StoredRows, topics: Topics
) -> None:
    assert scored(stored_after_drain, "transactions") == [(0, offset) for offset in topics.committed]
    assert dead_letter_reasons(stored_after_drain, "transactions") == Counter()


def test_exactly_the_remaining_events_of_a_compacted_topic_are_scored(
    stored_after_drain: StoredRows, topics: Topics
) -> None:
    assert scored(stored_after_drain, "compacted") == [(0, offset) for offset in topics.remaining]
    assert dead_letter_reasons(stored_after_drain, "compacted") == Counter()
