"""Several replicas of one stream over one log, the steps of a simulation, and its end."""

import random
from collections.abc import Callable, Sequence

import sqlalchemy as sa

from config.setting_classes import hash_shared, select_shared
from consumers.batch import Partition
from monitor.daemon.rules import build_stream_rules
from storage.control.settings import NewSettings, SettingRow, SettingsStore
from storage.control.settings import Replica as StoredReplica
from storage.database.tables import window_parts
from storage.ledger.ledger import Ledger
from storage.ledger.sources import NewSource
from tests.integration.control.worker_bench import add_model, fit_deriving_model
from tests.simulation.clock import SimulatedClock
from tests.simulation.database import Fault, SimulatedDatabase
from tests.simulation.replica import ROLES, Replica, Role, SimulatedStream
from tests.simulation.scenes import END_US, IDLE_TIMEOUT_S, START_US, TOPIC, Scene

_DISTURBED_STEPS = 2_000
_MAX_ROUNDS = 200
_QUIET_ROUNDS = 4
_ROUND_S = 0.4


class Cluster:
    """The replicas of one stream; each replica has its own connection to one database."""

    def __init__(
        self,
        databases: Sequence[SimulatedDatabase],
        scene: Scene,
        name: str,
        *,
        complete: bool,
        stored: Sequence[SettingRow] = (),
    ) -> None:
        """Store the stream, its model and its settings, and start the replicas.

        Args:
            databases: The connection of each replica.
            scene: The log and the files.
            name: The name of the stream.
            complete: Whether the whole log is produced at once.
            stored: The settings that another run has stored, with which this one begins.
        """
        self._databases = databases
        self._clock: SimulatedClock = databases[0].clock
        self._clock.now_us = START_US
        for each in databases:
            each.fault = None
        self.group = scene.make_group(complete=complete)
        self._files = [file.make_settings(name) for file in scene.files]
        self._deployed = [0] * len(databases)
        self._derives = scene.derives
        self._stream = SimulatedStream(stream_id=self._store_stream(name, stored), name=name, group=self.group)
        self._starts = self._rounds = 0
        self.replicas: list[Replica] = [self._start(member) for member in range(len(databases))]
        self.assign([0] * len(self.partitions))

    @property
    def stream_id(self) -> int:
        """Return the id of the stream."""
        return self._stream.stream_id

    @property
    def name(self) -> str:
        """Return the name of the stream."""
        return self._stream.name

    def _store_stream(self, name: str, stored: Sequence[SettingRow]) -> int:
        db, ledger = self._databases[0], Ledger(self._databases[0])
        rules = build_stream_rules(self._files[0], name)
        stream = ledger.open_stream(name, rules.size_us, rules.lead_us)
        ledger.register_sources(
            stream.id,
            [
                NewSource(topic=TOPIC, partition=each.partition, identity="log", next_offset=0)
                for each in self.partitions
            ],
        )
        add_model(db, stream.id, only_first=True, model=fit_deriving_model() if self._derives else None)
        if stored:
            own = [hash_shared(select_shared(file.streams[name])) for file in self._files]
            self._deployed = [own.index(stored[-1].hash)] * len(self._databases)
            size_us = build_stream_rules(self._files[self._deployed[0]], name).size_us
            replica = StoredReplica(owner="before", heartbeat_us=0, settings_hash=stored[-1].hash, version="-")
            new = NewSettings(rows=stored, window_size_us=size_us, lead_us=rules.lead_us)
            SettingsStore(db).exchange(stream.id, replica, lambda _: new)
        return stream.id

    @property
    def partitions(self) -> list[Partition]:
        """Return the partitions in order."""
        return sorted(self.group.logs)

    def _start(self, member: int) -> Replica:
        self._starts += 1
        owner = f"{self._stream.name}:{self._starts}"
        return Replica(self._databases[member], self._stream, member, owner, self._files[self._deployed[member]])

    def deploy(self, member: int, file: int) -> None:
        """Kill a replica and start it anew with one of the two files."""
        self._deployed[member] = file
        self.kill(member)

    def read_settings(self) -> list[SettingRow]:
        """Return the stored settings of the stream."""
        return SettingsStore(self._databases[0]).read_rows(self.stream_id)

    def assign(self, members: Sequence[int]) -> None:
        """Assign each partition to a member; the members notice it at their next polls."""
        for partition, member in zip(self.partitions, members, strict=False):
            self.group.assignment[partition] = member % len(self._databases)

    def move(self, partition: Partition, member: int) -> None:
        """Assign one partition to another member."""
        self.group.assignment[partition] = member

    def kill(self, member: int) -> None:
        """Kill a replica and start it anew."""
        self._databases[member].fault = None
        self.replicas[member].kill()
        self.replicas[member] = self._start(member)

    def break_transaction(self, member: int, fault: Fault) -> None:
        """Let the next transaction of a replica that writes fail."""
        self._databases[member].fault = fault

    def poll(self, member: int, n: int) -> None:
        """Let a replica poll up to n records of each of its partitions."""
        self.replicas[member].source.poll_records = n
        self.replicas[member].run_turn("intake")

    def resume(self, member: int, role: Role, steps: int) -> None:
        """Run one thread of a replica up to its n-th pause."""
        for _ in range(steps):
            self.replicas[member].resume(role)

    def pass_time(self, by_s: float) -> None:
        """Let time pass."""
        self._clock.advance(by_s)

    def finish(self, chance: random.Random | None = None) -> None:
        """Produce what is left of the log and run all replicas until everything is stored and judged.

        Args:
            chance: Selects the steps, and faults between them; None runs whole turns without faults.
        """
        if chance is not None:
            self._run_disturbed(chance)
        for partition in self.partitions:
            self.group.produce(partition, 10**9)
        before, n_quiet = None, 0
        for _ in range(_MAX_ROUNDS):
            self.run_round()
            self.pass_time(_ROUND_S)
            progress = self._read_progress()
            is_quiet = progress == before and not any(replica.moved for replica in self.replicas)
            n_quiet, before = n_quiet + 1 if is_quiet else 0, progress
            if n_quiet >= len(self.replicas) and self._has_stored_log() and self._count_parts() == 0:
                return
            if n_quiet % _QUIET_ROUNDS == _QUIET_ROUNDS - 1:
                self._clock.now_us = max(self._clock.now_us, END_US)
                self.pass_time(IDLE_TIMEOUT_S)
        raise AssertionError(f"the simulation is not settled after {_MAX_ROUNDS} rounds: {self._read_progress()}")

    def run_round(self, frozen: int | None = None) -> None:
        """Let all replicas but a frozen one poll and work, and one of them, in turn, run the control plane."""
        running = [member for member in range(len(self.replicas)) if member != frozen]
        for member in running:
            self.poll(member, 10**6)
            self.replicas[member].run_turn("worker")
        self._rounds += 1
        self.replicas[running[self._rounds % len(running)]].run_turn("control")

    def freeze(self, member: int, successor: int, rounds: int) -> None:
        """Run the other replicas, one of which takes the partitions over; then the frozen one goes on."""
        for partition in self.partitions:
            if self.group.assignment[partition] == member:
                self.move(partition, successor)
        for _ in range(rounds):
            self.run_round(frozen=member)
            self.pass_time(_ROUND_S)
        for role in ROLES[1:]:
            self.replicas[member].run_turn(role)

    def _run_disturbed(self, chance: random.Random) -> None:
        """Run steps and faults in a random order until the log is stored."""
        for number in range(_DISTURBED_STEPS):
            self._disturb(chance)
            self.pass_time(chance.choice([0.0, 0.01, 0.3]))
            if number % 50 == 0 and self.group.complete and self._has_stored_log():
                return

    def _disturb(self, chance: random.Random) -> None:
        members = range(len(self.replicas))
        member = chance.choice(members)
        actions: list[tuple[int, Callable[[], None]]] = [
            (3, lambda: self.kill(member)),
            (2, lambda: self.deploy(member, chance.choice([0, 1]))),
            (5, lambda: self.move(chance.choice(self.partitions), member)),
            (8, lambda: self.freeze(member, (member + chance.choice([1, 2])) % len(members), chance.randint(1, 6))),
            (4, lambda: self.break_transaction(member, chance.choice(list(Fault)))),
            (60, lambda: self.group.produce(chance.choice(self.partitions), chance.choice([1, 3, 10]))),
            (150, lambda: self.poll(member, chance.choice([1, 2, 5, 30]))),
            (400, lambda: self.resume(member, _choose_role(chance), chance.choice([1, 1, 2, 3, 8]))),
            (250, lambda: self.replicas[member].run_turn(_choose_role(chance))),
        ]
        chance.choices([run for _, run in actions], [weight for weight, _ in actions])[0]()

    def _read_progress(self) -> tuple[object, ...]:
        """Return the stored positions, the sealed time and the number of parts."""
        ledger = Ledger(self._databases[0])
        stored = ledger.active_sources(self.stream_id)
        return (
            [(each.partition, each.next_offset, each.watermark_us) for each in stored],
            ledger.read_control(self.stream_id),
            self._count_parts(),
        )

    def _has_stored_log(self) -> bool:
        ends = {partition.partition: log.end for partition, log in self.group.logs.items()}
        stored = Ledger(self._databases[0]).active_sources(self.stream_id)
        return all(each.next_offset == ends[each.partition] for each in stored)

    def _count_parts(self) -> int:
        """Return the number of parts that wait for a judgement; late and filtered records alone wait for an event."""
        is_judged = window_parts.c.events + window_parts.c.dead > 0
        query = sa.select(sa.func.count()).where(window_parts.c.stream_id == self.stream_id, is_judged)
        with self._databases[0].read() as connection:
            return int(connection.scalar(query) or 0)

    def close(self) -> None:
        """End all replicas."""
        for replica in self.replicas:
            replica.kill()


def _choose_role(chance: random.Random) -> Role:
    return chance.choices(ROLES, [2, 3, 1])[0]
