"""A daemon that keeps up with its input: the cost of waiting, the latency of the history, and many streams at once.

    python benchmarks/steady.py idle [--partitions 64]
    python benchmarks/steady.py latency [--rate 1000] [--partitions 4]
    python benchmarks/steady.py streams [--streams 50] [--rate 20]

Each starts a real broker on a loopback port, and with `--database postgresql` a real PostgreSQL, which waits for its
disk. `idle` prints the CPU time and the commits per second of a daemon without input; `latency` the time from sending
an event to its row in the database; `streams` the time from the end of a window and its grace to its judgement.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # as a script, this folder would be first in the import path

from tests.daemon.process import DaemonProcess  # noqa: E402 -- see above
from tests.daemon.stored import StoredRows  # noqa: E402 -- see above
from tests.servers.kafka import KafkaServer  # noqa: E402 -- see above
from tests.servers.postgres import PostgresServer  # noqa: E402 -- see above

D = 8
WARM_UP = 500
GRACE_S = 1
SECOND_US = 1_000_000


class Bench:
    """A broker, a database and a daemon with some streams."""

    def __init__(self, database: str, streams: int, partitions: int) -> None:
        self._stack = ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.broker = self._stack.enter_context(KafkaServer())
        url = f"sqlite:///{folder}/outrider.db"
        if database == "postgresql":
            url = self._stack.enter_context(PostgresServer(durable=True)).create_database()
        self.topics = [f"events_{i}" for i in range(streams)]
        self.partitions = partitions
        for topic in self.topics:
            self.broker.create_topic(topic, partitions)
        self.stored = self._stack.enter_context(closing(StoredRows(url)))
        self.daemon = DaemonProcess(folder, self._settings(url), "steady")
        self._stack.callback(self.daemon.close)

    def _settings(self, url: str) -> dict[str, Any]:
        stream = {
            "event": {"time": {"field": "ts"}, "features": [f"x{i}" for i in range(D)]},
            "model": {"n_components": 1, "warm_up": WARM_UP},
            "window": {"size": "1s", "grace": f"{GRACE_S}s", "idle_timeout": "2s"},
        }
        return {
            "database": {"url": url},
            "device": "cpu",
            "kafka": {"bootstrap_servers": [self.broker.bootstrap]},
            "streams": {topic: stream | {"source": {"type": "kafka", "topics": [topic]}} for topic in self.topics},
        }

    def start(self) -> psutil.Process:
        """Send the events of the warm-up, start the daemon and wait until they are stored."""
        sender = Sender(self)
        before_us = time.time_ns() // 1_000 - 60 * SECOND_US
        for i in range(WARM_UP):
            for topic in self.topics:
                sender.send(topic, i % self.partitions, before_us + i * 60 * SECOND_US // WARM_UP)
        sender.flush()
        self.daemon.start()
        n = WARM_UP * len(self.topics)
        self.daemon.wait_until(lambda: self.stored.number("SELECT sum(next_offset) FROM positions") >= n, "stored", 300)
        self.daemon.wait_until(lambda: self.stored.number("SELECT count(*) FROM window_parts") == 0, "judged", 300)
        return psutil.Process(self.daemon.pid)

    def close(self) -> None:
        """Stop the daemon and the servers."""
        self.daemon.terminate()
        self._stack.close()


class Sender:
    """Sends events with random features."""

    def __init__(self, bench: Bench) -> None:
        from kafka import KafkaProducer

        self._producer = KafkaProducer(bootstrap_servers=bench.broker.bootstrap, linger_ms=0)
        rng = np.random.default_rng(1)
        self._rows = [
            {f"x{j}": x for j, x in enumerate(row)} for row in np.round(rng.normal(size=(997, D)), 6).tolist()
        ]
        self._n = 0
        self.flush: Callable[[], None] = self._producer.flush

    def send(self, topic: str, partition: int, time_us: int) -> None:
        """Send one event."""
        self._n += 1
        event = self._rows[self._n % len(self._rows)] | {"ts": time_us}
        self._producer.send(topic, json.dumps(event).encode(), partition=partition)


def measure_idle(bench: Bench, seconds: float) -> None:
    """Print CPU time and commits per second of a daemon without input."""
    process = bench.start()
    bench.daemon.runs_for(10)  # until the sources are idle and all windows are judged
    cpu_s, started_s, commits = _cpu_s(process), time.monotonic(), _count_commits(bench.stored, seconds)
    took_s = time.monotonic() - started_s
    print(f"idle, {bench.partitions} partitions: {100 * (_cpu_s(process) - cpu_s) / took_s:.1f}% of a core, "
          f"{commits / took_s:.1f} commits/s")  # fmt: skip


def _count_commits(stored: StoredRows, seconds: float) -> int:
    """Return the number of commits of other connections within some seconds, two of one look counted as one."""
    if stored.url.startswith("sqlite"):
        versions = set()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            versions.add(stored.number("PRAGMA data_version"))
            time.sleep(0.01)
        return len(versions) - 1
    # Of the transactions with an id, which are those that write.
    before = stored.number("SELECT txid_snapshot_xmax(txid_current_snapshot())")
    time.sleep(seconds)
    return stored.number("SELECT txid_snapshot_xmax(txid_current_snapshot())") - before


def measure_latency(bench: Bench, rate: int, seconds: float) -> None:
    """Print the time from sending an event to its row, at a rate of events per second over all partitions."""
    process = bench.start()
    offsets = dict(bench.stored.rows("SELECT source_id, next_offset FROM positions"))
    sources = dict(bench.stored.rows("SELECT partition, id FROM sources"))
    sent: list[tuple[int, int, float]] = []
    seen: list[tuple[float, dict[int, int]]] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.004):
            seen.append((time.monotonic(), dict(bench.stored.rows("SELECT source_id, next_offset FROM positions"))))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    cpu_s = _cpu_s(process)
    sender, next_offsets = Sender(bench), {p: offsets[sources[p]] for p in range(bench.partitions)}

    def send(i: int) -> None:
        partition = i % bench.partitions
        sent.append((sources[partition], next_offsets[partition], time.monotonic()))
        next_offsets[partition] += 1
        sender.send(bench.topics[0], partition, time.time_ns() // 1_000)

    _send_at_rate(send, rate, seconds)
    sender.flush()
    used_s = _cpu_s(process) - cpu_s
    bench.daemon.runs_for(3)
    done.set()
    watcher.join()
    at_s = np.array([at for at, _ in seen])
    latencies = []
    for source_id in sources.values():
        reached = np.array([positions[source_id] for _, positions in seen])
        own = [(offset, when) for source, offset, when in sent if source == source_id]
        looks = np.searchsorted(reached, [offset for offset, _ in own], side="right")
        latencies.append(at_s[np.minimum(looks, len(at_s) - 1)] - [when for _, when in own])
    p50, p99 = np.percentile(np.concatenate(latencies), [50, 99])
    print(f"{rate:,} events/s in {bench.partitions} partitions: visible after p50 {p50:.3f} s, p99 {p99:.3f} s; "
          f"{100 * used_s / seconds:.0f}% of a core")  # fmt: skip


def measure_streams(bench: Bench, rate: int, seconds: float) -> None:
    """Print the time from the end of a window and its grace to its judgement, over all streams."""
    process = bench.start()
    sender, cpu_s, began_us = Sender(bench), _cpu_s(process), time.time_ns() // 1_000 + 2 * SECOND_US
    n = len(bench.topics)
    _send_at_rate(
        lambda i: sender.send(bench.topics[i % n], i // n % bench.partitions, time.time_ns() // 1_000),
        rate * n,
        seconds,
    )
    sender.flush()
    used_s = _cpu_s(process) - cpu_s
    ended_us = time.time_ns() // 1_000 - 2 * SECOND_US
    bench.daemon.runs_for(10)
    judged = bench.stored.rows(
        "SELECT window_end_us, judged_at_us FROM windows WHERE window_start_us BETWEEN :begin AND :end"
        " AND judged_at_us IS NOT NULL",
        begin=began_us,
        end=ended_us,
    )
    delays = np.array([(at_us - end_us) / SECOND_US - GRACE_S for end_us, at_us in judged])
    expected = n * int((ended_us - began_us) / SECOND_US)
    print(f"{n} streams of {rate} events/s: {len(delays)} of about {expected} windows judged, "
          f"p50 {np.percentile(delays, 50):.2f} s, p99 {np.percentile(delays, 99):.2f} s, at most {delays.max():.2f} s "
          f"after end + grace; {100 * used_s / seconds:.0f}% of a core")  # fmt: skip


def _send_at_rate(send: Callable[[int], None], rate: int, seconds: float) -> None:
    started_s = time.monotonic()
    for i in range(int(rate * seconds)):
        wait_s = started_s + i / rate - time.monotonic()
        if wait_s > 0.002:
            time.sleep(wait_s)
        send(i)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("measure", nargs="?", choices=("idle", "latency", "streams"), default="idle")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--partitions", type=int, help="partitions of a topic (default: 64, 4, 1)")
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--rate", type=int, help="events per second (default: 1,000; of a stream 20)")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args(arguments)
    partitions = options.partitions or {"idle": 64, "latency": 4, "streams": 1}[options.measure]
    bench = Bench(options.database, options.streams if options.measure == "streams" else 1, partitions)
    print(f"{options.database}; load {psutil.getloadavg()[0]:.1f} on {psutil.cpu_count()} cores", flush=True)
    try:
        if options.measure == "idle":
            measure_idle(bench, options.seconds)
        elif options.measure == "latency":
            measure_latency(bench, options.rate or 1_000, options.seconds)
        else:
            measure_streams(bench, options.rate or 20, options.seconds)
    finally:
        bench.close()


if __name__ == "__main__":
    main()
