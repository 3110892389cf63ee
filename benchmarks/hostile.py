"""Memory and outcome of the daemon on a topic of malformed records and of record batches that hold gigabytes.

    python benchmarks/hostile.py [--records N] [--bombs | --malformed]

Starts a real broker on a loopback port and a daemon with SQLite. Prints the number of stored events and dead letters,
the exceptions in the log, and the largest resident memory of the daemon.
"""

import argparse
import json
import random
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import lz4.frame
import psutil
import snappy
import zstandard

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # as a script, this folder would be first in the import path

from consumers.kafka.decompression import GZIP, LZ4, SNAPPY, ZSTD  # noqa: E402 -- see above
from tests.daemon.process import DaemonProcess  # noqa: E402 -- see above
from tests.daemon.stored import StoredRows  # noqa: E402 -- see above
from tests.property.malformed_records import malformed_records  # noqa: E402 -- see above
from tests.servers.kafka import KafkaServer  # noqa: E402 -- see above
from tests.servers.records import produce_batches  # noqa: E402 -- see above
from tests.unit.consumers.kafka.record_batches import Batch, sized, varint  # noqa: E402 -- see above

PARTITIONS = 2
GOOD = 2_000
RECORD_BYTES = 1 << 20
BOMBS = {ZSTD: 4_096, GZIP: 900, LZ4: 256, SNAPPY: 256}
"""Records of one MiB in the bomb of each codec."""

EXCEPTIONS = ("Traceback", "Error:", "Exception")
_NAMES = {GZIP: "gzip", SNAPPY: "snappy", LZ4: "lz4", ZSTD: "zstd"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000, help="number of malformed records (default: 100,000)")
    parser.add_argument("--bombs", action="store_true", help="only the batches that hold gigabytes")
    parser.add_argument("--malformed", action="store_true", help="only the malformed records")
    options = parser.parse_args()
    print(f"load {psutil.getloadavg()[0]:.1f} on {psutil.cpu_count()} cores")
    with KafkaServer(heap="768m") as broker:
        if not options.malformed:
            _run(broker, "bombs", 1, _bombs())
        if not options.bombs:
            _run(broker, "malformed", PARTITIONS, _malformed(options.records))


def _run(broker: KafkaServer, topic: str, partitions: int, batches: Iterator[tuple[int, Batch]]) -> None:
    broker.create_topic(topic, partitions, {"max.message.bytes": str(32 << 20)})
    good = Batch(base_offset=0, values=tuple(_good_events(0)))
    for partition in range(partitions):
        produce_batches(broker, topic, [good.encode()], partition=partition)
    started_s, n = time.perf_counter(), partitions * GOOD
    for partition, batch in batches:
        produce_batches(broker, topic, [batch.encode()], partition=partition)
        n += batch.next_offset
    for partition in range(partitions):
        produce_batches(broker, topic, [good.encode()], partition=partition)
        n += GOOD
    print(f"{topic}: {n:,} records produced in {time.perf_counter() - started_s:.0f} s")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = f"sqlite:///{folder}/outrider.db"
        stored = stack.enter_context(closing(StoredRows(url)))
        daemon = stack.enter_context(DaemonProcess(folder, _settings(url, broker, topic), topic))
        for attempt in ("first run", "after a restart"):
            daemon.start()
            daemon.wait_until(lambda: stored.progress() > 0, "the first events are committed", 120)
            process = psutil.Process(daemon.pid)
            first_bytes = _peak_bytes(process)
            daemon.wait_until(lambda n=n: stored.progress() >= n, "all offsets are committed", 1_200)  # type: ignore[misc]
            _report(attempt, stored, first_bytes, _peak_bytes(process))
            code = daemon.terminate()
            lines = daemon.log.splitlines()
            found = [line for line in lines if any(name in line for name in EXCEPTIONS)]
            skipped = sum("cannot read" in line for line in lines)
            print(f"    exit code {code}, {len(found)} exceptions in the log, {skipped} warnings of unreadable ranges")
            for line in found[:5]:
                print(f"    {line[:200]}")
            produce_batches(broker, topic, [good.encode()])
            n += GOOD


def _report(attempt: str, stored: StoredRows, first_bytes: int, peak_bytes: int) -> None:
    scored = stored.count("score_history")
    # An unreadable range is one dead letter of many offsets; other rows count their records.
    records = "CASE WHEN reason = 'unreadable_batch' THEN end_offset - source_offset ELSE count END"
    dead = stored.number(f"SELECT sum({records}) FROM dead_letter_history")
    reasons = dict(stored.rows("SELECT reason, sum(count) FROM dead_letter_history GROUP BY reason ORDER BY 1"))
    print(
        f"  {attempt}: {scored:,} scored + {dead:,} dead letters = {scored + dead:,}; resident at most "
        f"{peak_bytes / 2**20:,.0f} MiB, {first_bytes / 2**20:,.0f} MiB at the first commit"
    )
    print(f"    {json.dumps(reasons)}")


def _peak_bytes(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def _settings(url: str, broker: KafkaServer, topic: str) -> dict[str, Any]:
    return {
        "database": {"url": url},
        "device": "cpu",
        "kafka": {"bootstrap_servers": [broker.bootstrap]},
        "streams": {
            "hostile": {
                "source": {"type": "kafka", "topics": [topic]},
                "event": {"features": ["a", "b"], "key": "cust", "id": "id"},
                "model": {"n_components": 2, "warm_up": 1_000},
                "window": {"size": "10s", "idle_timeout": "2s"},
            }
        },
    }


def _good_events(seed: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    for _ in range(GOOD):
        yield json.dumps({"a": rng.gauss(0, 1), "b": rng.randrange(10), "cust": 1, "id": "x"}).encode()


def _malformed(n: int) -> Iterator[tuple[int, Batch]]:
    """Yield batches of malformed records in all codecs, with keys and headers."""
    rng = random.Random(7)
    now_ms = time.time_ns() // 1_000_000
    done = 0
    while done < n:
        size = min(n - done, rng.choice([1, 20, 200, 1_000]))
        values = tuple(malformed_records(rng, "json", size))
        keys = tuple(rng.choice([None, b"", rng.randbytes(rng.randrange(40))]) for _ in values)
        headers = ((b"trace", rng.randbytes(5)),) * rng.choice([0, 0, 1, 3])
        codec = rng.choice([0, GZIP, SNAPPY, LZ4, ZSTD])
        batch = Batch(
            base_offset=0,
            values=values,
            keys=keys if rng.random() < 0.5 else None,
            headers=headers,
            codec=codec,
            time_deltas=tuple(rng.randrange(1_000) for _ in values),
            timestamp_ms=now_ms - 600_000 + done * 500_000 // n,
        )
        done += size
        yield rng.randrange(PARTITIONS), batch


def _bombs() -> Iterator[tuple[int, Batch]]:
    """Yield a batch per codec that holds more than the limit, each followed by events."""
    for codec, n in BOMBS.items():
        stored = _compress(codec, n)
        print(f"  {_NAMES[codec]}: {len(stored):,} bytes hold {n * RECORD_BYTES / 2**20:,.0f} MiB")
        yield 0, Batch(base_offset=0, length=n, n_records=n, codec=codec, stored=stored)
        yield 0, Batch(base_offset=0, values=tuple(_good_events(codec)), codec=codec)


def _compress(codec: int, n: int) -> bytes:
    """Return n records of zeros in compressed form, written piece by piece."""
    if codec == SNAPPY:
        return _compress_snappy(n)
    if codec == LZ4:
        with lz4.frame.LZ4FrameCompressor(block_linked=False) as frame:
            return frame.begin() + b"".join(map(frame.compress, _zero_records(n))) + frame.flush()
    if codec == ZSTD:
        stream = zstandard.ZstdCompressor(level=19).compressobj()
        return b"".join(map(stream.compress, _zero_records(n))) + stream.flush()
    gzip = zlib.compressobj(9, wbits=31)
    return b"".join(map(gzip.compress, _zero_records(n))) + gzip.flush()


def _compress_snappy(n: int) -> bytes:
    blocks = [snappy.compress(record) for record in _zero_records(n)]
    framed = b"".join(len(block).to_bytes(4, "big") + block for block in blocks)
    return b"\x82SNAPPY\0" + (1).to_bytes(4, "big") * 2 + framed


def _zero_records(n: int) -> Iterator[bytes]:
    value = sized(bytes(RECORD_BYTES))
    for i in range(n):
        body = b"\0" + varint(0) + varint(i) + sized(None) + value + varint(0)
        yield varint(len(body)) + body


if __name__ == "__main__":
    main()
