"""Count of the instructions that SQLite executes."""

import sqlite3
from collections.abc import Callable
from types import TracebackType
from typing import Self

import sqlalchemy as sa

_STEPS_PER_CALL = 100


class StepCounter:
    """Counts the instructions of SQLite's virtual machine, in units of `_STEPS_PER_CALL`.

    While it is entered, it counts those of each connection that is opened.
    """

    def __init__(self) -> None:
        self.calls = 0

    def count(self, action: Callable[[], object]) -> int:
        """Return the count of one call."""
        before = self.calls
        action()
        return self.calls - before

    def _attach(self, driver: sqlite3.Connection, _record: object) -> None:
        driver.set_progress_handler(self._count, _STEPS_PER_CALL)

    def _count(self) -> int:
        self.calls += 1
        return 0

    def __enter__(self) -> Self:
        sa.event.listen(sa.pool.QueuePool, "connect", self._attach)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sa.event.remove(sa.pool.QueuePool, "connect", self._attach)
