"""Kill and freeze daemons many times while a topic is produced and drained, and compare the rows at the end.

`python -m tests.faults.soak --database postgresql --kills 100 --freezes 30`, or `--database sqlite --kills 100
--freezes 0`. Each fault waits for a stored commit, and a daemon needs some seconds to start: expect 5 to 15 s a fault.
The wait for one commit is limited to 5 minutes. The summary counts the faults and the log lines of the daemons; the
exit status is 1 if a row differs from those of an undisturbed daemon, or if an event is lost or stored twice.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.daemon.events import BurstStream, produce_records
from tests.daemon.process import DaemonProcess
from tests.daemon.settings import kafka_settings
from tests.daemon.stored import StoredRows, TableDump, differences, duplicates_and_missing
from tests.servers.kafka import KafkaServer
from tests.servers.postgres import PostgresServer

_RECORDS_PER_FAULT = 320
_FIRST_RECORDS = 4_000
"""Records before the first fault: more than the warm-up needs."""
_SETTLE_WITHIN_S = 300.0


@dataclass
class SoakTopic:
    """A topic that is produced in pieces; record i goes to partition i modulo the number of partitions."""

    server: KafkaServer
    name: str
    partitions: int
    records: list[bytes]
    produced: int = 0

    def produce(self, n: int) -> None:
        """Produce the next n records, rounded up so that the next piece begins with partition 0."""
        end = min(len(self.records), -(-(self.produced + n) // self.partitions) * self.partitions)
        produce_records(self.server, self.name, self.records[self.produced : end], self.partitions)
        self.produced = end

    @property
    def expected(self) -> dict[int, int]:
        """Return the number of records by partition."""
        return {i: len(range(i, len(self.records), self.partitions)) for i in range(self.partitions)}

    def settings(self, database_url: str) -> dict[str, Any]:
        """Return the settings of a daemon that drains the topic; a partition between two pieces is not idle."""
        return kafka_settings(
            database_url,
            self.server.bootstrap,
            self.name,
            window={"size": "10s", "grace": "10s", "ahead": "1m", "idle_timeout": "30s"},
            alerts={"silence_after": "never", "stalled_after": "1h"},
        )


@dataclass
class Soak:
    """The daemons of one topic and database, and the faults that they suffer."""

    topic: SoakTopic
    stored: StoredRows
    daemons: list[DaemonProcess]
    chance: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    frozen: dict[DaemonProcess, int] = field(default_factory=dict)

    def run(self, kills: int, freezes: int) -> None:
        """Inflict the faults in a random order, each after a further commit, and drain the topic."""
        self.topic.produce(_FIRST_RECORDS)
        faults = [*["kill"] * kills, *["freeze"] * freezes]
        self.chance.shuffle(faults)
        for number, fault in enumerate(faults):
            if len(self.frozen) == len(self.daemons) - 1 and fault == "freeze":
                self._wake(min(self.frozen.values()))  # one daemon has to run
            self._await_commit()
            self._wake(number)
            daemon = self.chance.choice([each for each in self.daemons if each not in self.frozen])
            assert daemon.runs_for(self.chance.uniform(0, 0.5)), daemon.tail()
            if fault == "kill":
                daemon.kill()
                daemon.start()
            else:
                daemon.send(signal.SIGSTOP)
                self.frozen[daemon] = number + self.chance.randint(1, 4)
            self.counts[fault] += 1
        self._wake(None)
        self.topic.produce(len(self.topic.records))
        self._wait("the topic is drained", len(self.topic.records), _SETTLE_WITHIN_S)

    def _await_commit(self) -> None:
        """Produce the next records, and wait until the daemons have stored a part of them."""
        before = self.stored.progress()
        self.topic.produce(_RECORDS_PER_FAULT)
        running = next(each for each in self.daemons if each not in self.frozen)
        running.wait_until(lambda: self.stored.progress() > before, "a commit", _SETTLE_WITHIN_S)

    def _wake(self, number: int | None) -> None:
        """Resume the daemons that are frozen up to this fault; None resumes all."""
        for daemon, until in list(self.frozen.items()):
            if number is None or until <= number:
                del self.frozen[daemon]
                daemon.send(signal.SIGCONT)

    def _wait(self, what: str, offsets: int, within_s: float) -> None:
        self.daemons[0].wait_until(lambda: self.stored.is_settled(offsets), what, within_s)

    def stop(self) -> list[int]:
        """Stop the daemons; return their exit codes."""
        return [daemon.terminate() for daemon in self.daemons]

    def count_actions(self) -> Counter[str]:
        """Count the log lines of all daemons by their action and level."""
        found: Counter[str] = Counter()
        for daemon in self.daemons:
            for text in daemon.log.splitlines():
                try:
                    line = json.loads(text)
                except ValueError:  # a daemon was killed while it wrote the line
                    found["unreadable lines"] += 1
                    continue
                found[f"{line.get('action', 'other')} ({line['level']})"] += 1
        return found


def main() -> int:
    """Run the soak; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="postgresql")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--freezes", type=int, default=30)
    parser.add_argument("--replicas", type=int, default=3, help="daemons on PostgreSQL; on SQLite there is one")
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.database == "sqlite" and options.freezes:
        parser.error("on SQLite no other daemon can replace a frozen one: give --freezes 0")
    n_replicas = 1 if options.database == "sqlite" else options.replicas
    begin_s = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        topic = _make_topic(stack.enter_context(_running_kafka()), options)
        url = stack.enter_context(_open_database(options.database, folder))
        stored = stack.enter_context(closing(StoredRows(url)))
        daemons = [DaemonProcess(folder, topic.settings(url), f"replica-{i}") for i in range(n_replicas)]
        for daemon in daemons:
            stack.enter_context(daemon.start())
        soak = Soak(topic=topic, stored=stored, daemons=daemons, chance=random.Random(options.seed))
        soak.run(options.kills, options.freezes)
        exits = soak.stop()
        actions = soak.count_actions()
        dump = stored.dump()
        reference = _run_undisturbed(folder, topic)
    repeated, missing = duplicates_and_missing(dump, topic.expected)
    different = differences(dump, reference)
    print(f"{options.database}, {n_replicas} daemons, {options.partitions} partitions, {len(topic.records)} records")
    print(f"SIGKILL: {soak.counts['kill']}, SIGSTOP: {soak.counts['freeze']}, exit codes at the end: {exits}")
    print("log lines: " + ", ".join(f"{action} {n}" for action, n in sorted(actions.items())))
    print(f"events lost: {missing}, stored twice: {len(repeated)}")
    sizes = ", ".join(f"{name} {len(rows)}" for name, rows in reference.items())
    print(f"rows: {sizes}: " + ("all equal" if not different else "DIFFERENT"))
    for name, text in different.items():
        print(f"  {name}: {text}")
    print(f"{time.monotonic() - begin_s:.0f} s")
    return int(bool(different or missing or repeated or any(exits)))


@contextmanager
def _running_kafka() -> Iterator[KafkaServer]:
    server = KafkaServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


def _make_topic(server: KafkaServer, options: argparse.Namespace) -> SoakTopic:
    n = _FIRST_RECORDS + (options.kills + options.freezes + 2) * _RECORDS_PER_FAULT
    name = f"soak-{os.urandom(4).hex()}"
    server.create_topic(name, options.partitions)
    records = BurstStream(events=n, seconds=n // 10).records()
    return SoakTopic(server=server, name=name, partitions=options.partitions, records=records)


@contextmanager
def _open_database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'outrider.db'}"
        return
    with PostgresServer() as server:
        yield server.create_database()


def _run_undisturbed(folder: Path, topic: SoakTopic) -> TableDump:
    """Return the rows that a daemon on SQLite stores of the topic without any fault."""
    url = f"sqlite:///{folder / 'reference.db'}"
    daemon = DaemonProcess(folder, topic.settings(url), "reference")
    with closing(StoredRows(url)) as stored, daemon.start():
        daemon.wait_until(lambda: stored.is_settled(len(topic.records)), "the reference run", _SETTLE_WITHIN_S)
        assert daemon.terminate() == 0
        return stored.dump()


if __name__ == "__main__":
    sys.exit(main())
