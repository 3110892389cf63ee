"""The state machine of the simulation: hypothesis draws a log and the steps of the replicas, and shrinks both."""

import itertools
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import ClassVar

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from storage.control import rollups
from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from tests.simulation.clock import SimulatedClock
from tests.simulation.cluster import Cluster
from tests.simulation.database import Fault, SimulatedDatabase
from tests.simulation.replica import ROLES, Role
from tests.simulation.rows import Rows, read_rows
from tests.simulation.scenes import SECOND_US, START_US, Scene, scenes

SETTINGS = settings(stateful_step_count=25, database=None, deadline=None, suppress_health_check=list(HealthCheck))
_REPLICAS = 3
MEMBERS = st.integers(0, _REPLICAS - 1)
_names = itertools.count(1)


class DataPlaneMachine(RuleBasedStateMachine):
    """Steps of three replicas over one log; at the end the rows must equal those of an undisturbed run.

    A subclass sets the databases: one connection per replica, and one for the undisturbed run.
    """

    databases: ClassVar[Sequence[SimulatedDatabase]]
    reference: ClassVar[SimulatedDatabase]
    steps_taken: ClassVar[int] = 0
    runs_compared: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.cluster: Cluster | None = None
        self.chance: random.Random | None = None

    @initialize(scene=scenes(), seed=st.integers(0, 2**16))
    def open(self, scene: Scene, seed: int) -> None:
        self.scene = scene
        self.chance = random.Random(seed) if seed else None
        self.cluster = Cluster(self.databases, scene, f"run_{next(_names)}", complete=False)

    @rule(partition=MEMBERS, n=st.integers(1, 10))
    def produce(self, partition: int, n: int) -> None:
        cluster = self.get_cluster()
        cluster.group.produce(cluster.partitions[partition % len(cluster.partitions)], n)

    @rule(member=MEMBERS, n=st.sampled_from([1, 2, 5, 30]))
    def poll(self, member: int, n: int) -> None:
        self.get_cluster().poll(member, n)

    @rule(member=MEMBERS, role=st.sampled_from(ROLES), steps=st.integers(1, 12))
    def resume(self, member: int, role: Role, steps: int) -> None:
        self.get_cluster().resume(member, role, steps)

    @rule(n=st.integers(1, 5))
    def run_rounds(self, n: int) -> None:
        for _ in range(n):
            self.get_cluster().run_round()
            self.get_cluster().pass_time(0.6)

    @rule(member=MEMBERS, role=st.sampled_from(ROLES))
    def run_turn(self, member: int, role: Role) -> None:
        self.get_cluster().replicas[member].run_turn(role)

    @rule(member=MEMBERS)
    def kill(self, member: int) -> None:
        self.get_cluster().kill(member)

    @rule(member=MEMBERS, file=st.integers(0, 1))
    def deploy(self, member: int, file: int) -> None:
        self.get_cluster().deploy(member, file)

    @rule(member=MEMBERS, distance=st.integers(1, 2), rounds=st.integers(1, 6))
    def freeze(self, member: int, distance: int, rounds: int) -> None:
        self.get_cluster().freeze(member, (member + distance) % _REPLICAS, rounds)

    @rule(members=st.tuples(MEMBERS, MEMBERS, MEMBERS))
    def rebalance(self, members: tuple[int, int, int]) -> None:
        self.get_cluster().assign(members)

    @rule(member=MEMBERS, fault=st.sampled_from(Fault))
    def break_transaction(self, member: int, fault: Fault) -> None:
        self.get_cluster().break_transaction(member, fault)

    @rule(by_s=st.sampled_from([0.1, 0.6, 1.1]))
    def pass_time(self, by_s: float) -> None:
        self.get_cluster().pass_time(by_s)

    def get_cluster(self) -> Cluster:
        assert self.cluster is not None, "open is the first step"
        type(self).steps_taken += 1
        return self.cluster

    def teardown(self) -> None:
        """Finish the run and compare its rows with those of the undisturbed run."""
        if self.cluster is None:
            return
        try:
            self.cluster.finish(self.chance)
        finally:
            self.cluster.close()
        stored = self.cluster.read_settings()
        undisturbed = Cluster([self.reference], self.scene, self.cluster.name, complete=True, stored=stored)
        try:
            undisturbed.finish()
        finally:
            undisturbed.close()
        found = read_rows(self.databases[0], self.cluster.stream_id)
        expected = read_rows(self.reference, undisturbed.stream_id)
        check_rows(found, expected)
        check_windows(self.databases[0], self.cluster.stream_id)
        check_rollups(self.databases[0], self.cluster.stream_id)
        type(self).runs_compared += 1


@contextmanager
def open_machine(url: str, reference_url: str) -> Iterator[type[DataPlaneMachine]]:
    """Yield a state machine whose replicas share an empty database; the undisturbed runs have another one.

    The intervals of the roll-ups are short, so that a log of some minutes has many of them.
    """
    clock = SimulatedClock(START_US)
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(rollups, "FINE_US", 20 * SECOND_US)
        patch.setattr(rollups, "COARSE_US", 120 * SECOND_US)
        databases = [stack.enter_context(closing(SimulatedDatabase(url, clock))) for _ in range(_REPLICAS)]
        reference = stack.enter_context(closing(SimulatedDatabase(reference_url, SimulatedClock(START_US))))
        upgrade(databases[0])
        upgrade(reference)

        class Machine(DataPlaneMachine):
            pass

        Machine.databases, Machine.reference = databases, reference
        yield Machine


def check_rows(found: dict[str, Rows], expected: dict[str, Rows]) -> None:
    """Compare the rows of two runs; name the number of different rows of each table and the first of them."""
    problems = []
    for name, rows in expected.items():
        different = [(ours, theirs) for ours, theirs in itertools.zip_longest(found[name], rows) if ours != theirs]
        if different:
            ours, theirs = different[0]
            problems.append(f"{name}: {len(different)} rows differ; the first is {ours}, undisturbed {theirs}")
    assert not problems, "\n".join(problems)


def check_windows(db: Database, stream_id: int) -> None:
    """Check that windows do not overlap and that their counts add up to the stored rows."""
    with db.read() as connection:
        spans = connection.execute(
            sa.text("SELECT window_start_us, window_end_us FROM windows WHERE stream_id = :id ORDER BY 1"),
            {"id": stream_id},
        ).all()
        counted, waiting, stored = (
            int(connection.scalar(sa.text(query), {"id": stream_id}) or 0)
            for query in (
                "SELECT sum(events + late) FROM windows WHERE stream_id = :id",
                "SELECT sum(late) FROM window_parts WHERE stream_id = :id",
                "SELECT count(*) FROM scores WHERE source_id IN (SELECT id FROM sources WHERE stream_id = :id)",
            )
        )
    overlaps = [(a, b) for a, b in itertools.pairwise(spans) if a[1] > b[0]]
    assert not overlaps, f"windows overlap: {overlaps[0]}"
    assert counted + waiting == stored, f"the windows count {counted + waiting} events, {stored} are stored"


def check_rollups(db: Database, stream_id: int) -> None:
    """Check that every window before the mark is in exactly one roll-up of the finest resolution, with its counts."""
    with db.read() as connection:
        counts = "count(judged_at_us), sum(events), sum(outliers), sum(late), sum(dead), sum(filtered)"
        of_windows = connection.execute(
            sa.text(
                f"SELECT window_start_us / :fine * :fine AS start_us, {counts} FROM windows WHERE stream_id = :id "
                "AND window_start_us < (SELECT rolled_up_us FROM streams WHERE id = :id) GROUP BY 1 ORDER BY 1"
            ),
            {"id": stream_id, "fine": rollups.FINE_US},
        ).all()
        stored = connection.execute(
            sa.text(
                "SELECT start_us, windows, events, outliers, late, dead, filtered FROM window_rollups "
                "WHERE stream_id = :id AND resolution_us = :fine ORDER BY 1"
            ),
            {"id": stream_id, "fine": rollups.FINE_US},
        ).all()
    assert [tuple(map(int, row)) for row in of_windows] == [tuple(row) for row in stored]
