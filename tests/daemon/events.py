"""A reproducible stream of events with planted bursts of outliers, and its topic."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tests.servers.kafka import KafkaServer

START_US = 1_767_225_600_000_000  # 2026-01-01, a multiple of every window size
FEATURES = ("x0", "x1", "x2")


@dataclass(frozen=True, slots=True, kw_only=True)
class BurstStream:
    """Records in the order of their creation; record i goes to partition i modulo the number of partitions.

    A burst starts every `burst_every_s` seconds: during `burst_s` seconds a quarter of the events are outliers. Some
    events are delayed by half a window, which is within the grace, and some are delayed so much that they are late.
    """

    events: int = 20_000
    seconds: int = 2_000
    seed: int = 1
    burst_every_s: int = 400
    burst_s: int = 20

    def records(self) -> list[bytes]:
        """Return the events as JSON."""
        rng = np.random.default_rng(self.seed)
        at_s = np.sort(rng.uniform(0, self.seconds, self.events))
        mixing = np.array([[1.0, 0.4, 0.0], [0.0, 1.0, -0.3], [0.2, 0.0, 0.7]])
        x = rng.normal(size=(self.events, len(FEATURES))) @ mixing
        anomalous = (at_s % self.burst_every_s > self.burst_every_s - self.burst_s) & (rng.random(self.events) < 0.25)
        x[anomalous] += 9.0
        delay_draw = rng.random(self.events)
        at_s -= np.select([delay_draw < 0.002, delay_draw < 0.02], [60.0, 5.0], 0.0)
        times_us = START_US + np.maximum(0, at_s * 1e6).astype(np.int64)
        return [
            json.dumps({"ts": int(time_us), "id": i, **dict(zip(FEATURES, row, strict=True))}).encode()
            for i, (time_us, row) in enumerate(zip(times_us.tolist(), np.round(x, 6).tolist(), strict=True))
        ]


def produce_records(
    server: KafkaServer, topic: str, records: Sequence[bytes | None], partitions: int, *, linger_ms: int = 20
) -> None:
    """Produce records round-robin to the partitions of a topic; records within `linger_ms` share a batch."""
    from tests.servers.records import (
        open_producer,
    )  # the client warns at import; pytest filters the warning only inside tests

    with open_producer(server, linger_ms=linger_ms, batch_size=65_536) as writer:
        for i, record in enumerate(records):
            # A tombstone, which is a record without a value, needs a key.
            writer.send(topic, record, key=b"gone" if record is None else None, partition=i % partitions)
        writer.flush()
