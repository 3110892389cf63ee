"""Write transactions of SQLite that share one COMMIT: order, failures, and the end of a shared transaction."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from storage.database.engine import Database
from storage.database.errors import CommitUnknown


class SharedFile:
    """A database with a table of numbers, whose COMMITs are counted and may fail."""

    def __init__(self, file: Path) -> None:
        self.db = Database(f"sqlite:///{file}")
        with self.db.write() as connection:
            connection.exec_driver_sql("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
        self.commits = 0
        self.commit_error: Exception | None = None
        sa.event.listen(self.db._writer, "commit", self._note_commit)

    def _note_commit(self, _: sa.Connection) -> None:
        self.commits += 1
        if self.commit_error is not None:
            raise self.commit_error

    def numbers(self) -> list[int]:
        with self.db.read() as connection:
            return list(connection.exec_driver_sql("SELECT n FROM numbers ORDER BY n").scalars())

    def insert(self, *numbers: int) -> None:
        with self.db.write() as connection:
            for n in numbers:
                connection.exec_driver_sql("INSERT INTO numbers VALUES (?)", (n,))

    def run_together(self, *blocks: Callable[[], None]) -> list[Future[None]]:
        """Run blocks that wait in the queue, in their order, while another block is in its transaction."""
        lock = self.db._shared_writes._lock
        with ThreadPoolExecutor(len(blocks)) as pool, self.db.write():
            futures = []
            for n, block in enumerate(blocks, 1):
                futures.append(pool.submit(block))
                while lock.n_waiting < n:
                    threading.Event().wait(0.001)
        return futures


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedFile]:
    monkeypatch.setattr("storage.database.shared_writes._MAX_DURATION_S", 60.0)
    file = SharedFile(tmp_path / "numbers.db")
    yield file
    file.db.close()


def test_blocks_that_wait_share_one_commit(shared: SharedFile) -> None:
    for future in shared.run_together(*(lambda n=n: shared.insert(n) for n in range(5))):
        future.result()
    assert (shared.numbers(), shared.commits) == ([0, 1, 2, 3, 4], 1)


def test_a_block_without_others_is_committed_at_once(shared: SharedFile) -> None:
    shared.insert(1)
    shared.insert(2)
    assert (shared.numbers(), shared.commits) == ([1, 2], 2)


def test_a_long_transaction_takes_no_further_blocks(shared: SharedFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.database.shared_writes._MAX_DURATION_S", 0.0)
    shared.run_together(*(lambda n=n: shared.insert(n) for n in range(3)))
    assert (shared.numbers(), shared.commits) == ([0, 1, 2], 4)


def test_a_failed_block_is_rolled_back_alone(shared: SharedFile) -> None:
    first, failed, last = shared.run_together(
        lambda: shared.insert(1, 2), lambda: shared.insert(3, 2), lambda: shared.insert(4)
    )
    assert isinstance(failed.exception(), sa.exc.IntegrityError)
    assert (first.exception(), last.exception()) == (None, None)
    assert (shared.numbers(), shared.commits) == ([1, 2, 4], 1)


def test_a_failed_first_block_leaves_a_new_transaction_to_the_others(shared: SharedFile) -> None:
    class _FirstError(Exception):
        pass

    lock = shared.db._shared_writes._lock
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(_FirstError), shared.db.write() as connection:
            connection.exec_driver_sql("INSERT INTO numbers VALUES (1)")
            future = pool.submit(shared.insert, 2)
            while not lock.n_waiting:
                threading.Event().wait(0.001)
            raise _FirstError
        future.result()
    assert shared.numbers() == [2]


def test_every_block_raises_the_error_of_a_failed_commit(shared: SharedFile) -> None:
    shared.commit_error = CommitUnknown("the disk does not answer")
    with pytest.raises(CommitUnknown), ThreadPoolExecutor(1) as pool, shared.db.write() as connection:
        connection.exec_driver_sql("INSERT INTO numbers VALUES (1)")
        future = pool.submit(shared.insert, 2)
        while not shared.db._shared_writes._lock.n_waiting:
            threading.Event().wait(0.001)
    assert isinstance(future.exception(), CommitUnknown)
    shared.commit_error = None
    assert shared.numbers() == []
    shared.insert(3)
    assert shared.numbers() == [3]


def test_a_pragma_ends_the_open_transaction_first(shared: SharedFile) -> None:
    (future,) = shared.run_together(shared.db.checkpoint_wal)
    future.result()
    shared.insert(1)
    assert shared.numbers() == [1]
