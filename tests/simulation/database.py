"""A database whose transactions are the steps of a simulation, with its clock and its faults."""

import contextlib
from collections.abc import Iterator
from enum import Enum, auto

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from config.errors import StorageUnavailable
from storage.database.engine import Database
from storage.database.errors import CommitUnknown
from tests.simulation.actor import pause_current_actor
from tests.simulation.clock import SimulatedClock


class Fault(Enum):
    """A fault of the next transaction that writes."""

    UNAVAILABLE = auto()
    """The transaction does not begin."""
    LOST = auto()
    """The outcome is unknown, and nothing is stored."""
    ANSWER_LOST = auto()
    """The outcome is unknown, and the transaction is stored."""


class SimulatedDatabase(Database):
    """The connection of one replica: its actor waits before and after each transaction, never inside one."""

    def __init__(self, url: str, clock: SimulatedClock) -> None:
        super().__init__(url)
        self.clock = clock
        self.fault: Fault | None = None

    def clock_expression(self) -> sa.ColumnElement[int]:
        """Return the simulated time."""
        return sa.literal(self.clock.now_us, sa.BigInteger)

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection, and wait after the transaction."""
        with super().read() as connection:
            yield connection
        pause_current_actor()

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """Yield a connection, and wait before and after the transaction."""
        pause_current_actor()
        fault, self.fault = self.fault, None
        if fault is Fault.UNAVAILABLE:
            raise StorageUnavailable("the simulated database does not answer")
        with super().write() as connection:
            yield connection
            if fault is Fault.LOST:
                raise CommitUnknown("the simulated connection broke before COMMIT")
        pause_current_actor()
        if fault is Fault.ANSWER_LOST:
            raise CommitUnknown("the simulated connection broke after COMMIT")
