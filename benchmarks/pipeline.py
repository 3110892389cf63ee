"""Throughput from Kafka to committed rows, compared with polling by kafka-python alone; memory over time.

    python benchmarks/pipeline.py [--events N] [--memory] [--database sqlite|postgresql]

Starts a real broker and a real PostgreSQL on loopback ports. The time of the daemon is measured from the first to the
last committed event. `--memory` processes ten times the events and records the resident memory.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # as a script, this folder would be first in the import path

from tests.daemon.process import DaemonProcess  # noqa: E402 -- see above
from tests.daemon.stored import StoredRows  # noqa: E402 -- see above
from tests.servers.kafka import KafkaServer  # noqa: E402 -- see above
from tests.servers.postgres import PostgresServer  # noqa: E402 -- see above

PARTITIONS = 4
D = 8
EVENTS_PER_S = 1_000  # of event time
WARM_UP = 10_000
START_US = 1_767_225_600_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=200_000, help="number of events (default: 200,000)")
    parser.add_argument("--memory", action="store_true", help="process ten times as many and report the memory")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), help="only this one")
    options = parser.parse_args()
    n = options.events * (10 if options.memory else 1)
    kinds = (options.database,) if options.database else ("sqlite", "postgresql")
    print(f"{n:,} JSON events of {D} features in {PARTITIONS} partitions; load {psutil.getloadavg()[0]:.1f} "
          f"on {psutil.cpu_count()} cores")  # fmt: skip
    with KafkaServer() as broker, PostgresServer(durable=True) as postgres, tempfile.TemporaryDirectory() as folder:
        broker.create_topic("events", PARTITIONS)
        size = _fill(broker, n)
        print(f"{'':<34}{'events/s':>10}{'us/event':>10}{'CPU us':>8}")
        _row("kafka-python alone, polled", n, *_polled(broker))
        for kind in kinds:
            url = postgres.create_database() if kind == "postgresql" else f"sqlite:///{folder}/outrider.db"
            _drain(kind, Path(folder), url, broker, n, mark=options.events if options.memory else None)
        _row("kafka-python alone, polled again", n, *_polled(broker))
        print(f"{size / n:.0f} bytes an event")


def _fill(broker: KafkaServer, n: int) -> int:
    from kafka import KafkaProducer

    rng = np.random.default_rng(1)
    size = 0
    writer = KafkaProducer(bootstrap_servers=broker.bootstrap, linger_ms=50, batch_size=65_536)
    for begin in range(0, n, 50_000):
        rows = np.round(rng.normal(size=(min(50_000, n - begin), D)), 6).tolist()
        for i, row in enumerate(rows, begin):
            event = {"ts": START_US + i * 1_000_000 // EVENTS_PER_S} | {f"x{j}": x for j, x in enumerate(row)}
            value = json.dumps(event).encode()
            size += len(value)
            writer.send("events", value, partition=i % PARTITIONS)
        writer.flush()
    writer.close()
    return size


def _polled(broker: KafkaServer) -> tuple[float, float]:
    """Return the seconds and CPU seconds that a plain consumer needs to poll all events."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(
        bootstrap_servers=broker.bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_poll_records=5_000,
        isolation_level="read_committed",
    )
    partitions = [TopicPartition("events", i) for i in range(PARTITIONS)]
    consumer.assign(partitions)
    remaining = sum(consumer.end_offsets(partitions).values())
    started_s, cpu = time.perf_counter(), time.process_time()
    while remaining:
        remaining -= sum(map(len, consumer.poll(timeout_ms=1_000).values()))
    took = time.perf_counter() - started_s, time.process_time() - cpu
    consumer.close()
    return took


def _settings(url: str, broker: KafkaServer) -> dict[str, Any]:
    return {
        "database": {"url": url},
        "device": "cpu",
        "kafka": {"bootstrap_servers": [broker.bootstrap]},
        "streams": {
            "bench": {
                "source": {"type": "kafka", "topics": ["events"]},
                "event": {"time": {"field": "ts"}, "features": [f"x{i}" for i in range(D)]},
                "model": {"n_components": 2, "warm_up": WARM_UP},
                "window": {"size": "10s", "idle_timeout": "2s"},
            }
        },
    }


@contextmanager
def _running(folder: Path, url: str, broker: KafkaServer, kind: str) -> Iterator[tuple[DaemonProcess, StoredRows]]:
    with closing(StoredRows(url)) as stored, DaemonProcess(folder, _settings(url, broker), kind) as daemon:
        yield daemon.start(), stored
        code = daemon.terminate()
        if code:
            sys.exit(f"the daemon ended with {code}\n{daemon.tail()}")


def _drain(kind: str, folder: Path, url: str, broker: KafkaServer, n: int, *, mark: int | None) -> None:
    with _running(folder, url, broker, kind) as (daemon, stored):
        process = psutil.Process(daemon.pid)
        daemon.wait_until(lambda: stored.progress() > 0, "the first events are committed", 120)
        started_s, cpu, done = time.perf_counter(), _cpu_s(process), stored.progress()
        resident: list[tuple[int, int]] = []
        while (at := stored.progress()) < n:
            daemon.wait_until(lambda at=at: stored.progress() > at, f"more than {at:,} offsets are committed", 60)  # type: ignore[misc]
            resident.append((at, process.memory_info().rss))
        took, used = time.perf_counter() - started_s, _cpu_s(process) - cpu
        _row(f"Kafka to rows in {kind}", n - done, took, used)
        daemon.wait_until(lambda: stored.is_settled(n), "all windows are judged", 120)
        resident.append((n, process.memory_info().rss))
    if mark is not None:
        # Resident memory at the first observation after the mark, and at the end.
        early = next(rss for at, rss in resident if at >= mark)
        print(f"    resident after {mark:,}: {early / 2**20:.0f} MiB; after {n:,}: {resident[-1][1] / 2**20:.0f} MiB; "
              f"most {max(rss for _, rss in resident) / 2**20:.0f} MiB")  # fmt: skip


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _row(label: str, n: int, seconds: float, cpu_s: float) -> None:
    print(f"{label:<34}{n / seconds:>10,.0f}{1e6 * seconds / n:>10.1f}{1e6 * cpu_s / n:>8.1f}", flush=True)


if __name__ == "__main__":
    main()
