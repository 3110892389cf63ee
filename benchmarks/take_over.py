"""Measure the take-over after SIGKILL: two daemons on PostgreSQL, Kafka's session time-out at its default.

    python benchmarks/take_over.py [--kills 3]

The daemon that holds the lease of the stream is killed. Printed are the seconds until the other one owns every
partition, and until it has judged a window that began after the kill. The target is 12 s.
"""

import argparse
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.daemon.process import DaemonProcess
from tests.daemon.settings import STREAM, kafka_settings
from tests.daemon.stored import StoredRows
from tests.servers.kafka import KafkaServer
from tests.servers.postgres import PostgresServer

TOPIC, PARTITIONS, RATE = "take-over", 4, 200


def produce_live(server: KafkaServer, ended: threading.Event) -> None:
    from tests.servers.records import open_producer

    rng, i = np.random.default_rng(1), 0
    with open_producer(server, linger_ms=5) as writer:
        while not ended.wait(0.05):
            for _ in range(RATE // 20):
                x = rng.normal(size=3).round(6).tolist()
                event = {"ts": time.time_ns() // 1_000, "id": i, "x0": x[0], "x1": x[1], "x2": x[2]}
                writer.send(TOPIC, json.dumps(event).encode(), partition=i % PARTITIONS)
                i += 1
            writer.flush()


def wait_for(condition: Callable[[], bool], what: str) -> float:
    began_s = time.monotonic()
    while not condition():
        if time.monotonic() - began_s > 90:
            raise SystemExit(f"waited 90 s for {what}")
        time.sleep(0.05)
    return time.monotonic() - began_s


def measure(daemons: dict[int, DaemonProcess], stored: StoredRows) -> tuple[float, float]:
    """Kill the holder of the lease; return the seconds until the partitions, and the next window, are taken over."""
    ((holder,),) = stored.rows("SELECT holder FROM leases WHERE name = :n", n=f"control:{STREAM}")
    pid = int(holder.split(":")[1])
    killed_us, began_s = time.time_ns() // 1_000, time.monotonic()
    daemons[pid].send(signal.SIGKILL)
    daemons[pid].wait()
    judged = "SELECT count(*) FROM windows WHERE window_start_us > :at AND judged_at_us IS NOT NULL"
    owners = f"SELECT count(*) FROM positions WHERE active AND owner LIKE '%:{pid}:%'"
    wait_for(lambda: stored.number(owners) == 0, "the partitions")
    owned_s = time.monotonic() - began_s
    wait_for(lambda: stored.number(judged, at=killed_us) > 0, "a judged window")
    judged_s = time.monotonic() - began_s
    restarted = daemons.pop(pid).start()
    daemons[restarted.pid] = restarted
    return owned_s, judged_s


def owners_of(stored: StoredRows) -> set[int]:
    rows = stored.rows("SELECT owner FROM positions WHERE active")
    return {0 if owner is None else int(owner.split(":")[1]) for (owner,) in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=3)
    kills: int = parser.parse_args().kills
    ended = threading.Event()
    with tempfile.TemporaryDirectory() as name, KafkaServer() as kafka, PostgresServer() as postgres:
        url = postgres.create_database()
        kafka.create_topic(TOPIC, PARTITIONS)
        producer = threading.Thread(target=produce_live, args=(kafka, ended))
        producer.start()
        settings = kafka_settings(
            url,
            kafka.bootstrap,
            TOPIC,
            model={"n_components": 1, "warm_up": 500},
            window={"size": "1s", "grace": "1s", "ahead": "1m", "idle_timeout": "5s"},
        )
        settings["kafka"]["client"] = {}
        started = [DaemonProcess(Path(name), settings, f"replica{i}").start() for i in range(2)]
        daemons = {each.pid: each for each in started}
        stored = StoredRows(url)
        try:
            wait_for(lambda: stored.count("windows") > 5, "the first windows")
            for _ in range(kills):
                wait_for(lambda: owners_of(stored) == set(daemons), "both daemons to own partitions")
                owned_s, judged_s = measure(daemons, stored)
                print(f"all partitions taken over after {owned_s:.1f} s, next window judged after {judged_s:.1f} s")
        finally:
            ended.set()
            producer.join()
            stored.close()
            for each in daemons.values():
                each.close()
    print(f"load of the machine: {os.getloadavg()}")


if __name__ == "__main__":
    main()
