"""The fair lock: order, mutual exclusion and misuse."""

import threading
import time
from collections.abc import Callable

import pytest

from storage.database.fair_lock import FairLock


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"


def test_waiting_threads_acquire_the_lock_in_order() -> None:
    lock = FairLock()
    acquired: list[int] = []

    def work(number: int) -> None:
        with lock:
            acquired.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    with lock:
        for number, thread in enumerate(threads):
            thread.start()
            _wait_for(lambda wanted=number + 1: lock.n_waiting == wanted)  # type: ignore[misc]
    for thread in threads:
        thread.join(10)
    assert acquired == list(range(20))


def test_thread_that_locks_repeatedly_does_not_overtake_a_waiting_thread() -> None:
    lock = FairLock()
    order: list[str] = []

    def wait() -> None:
        with lock:
            order.append("waiting")

    thread = threading.Thread(target=wait)
    for _ in range(3):
        with lock:
            order.append("greedy")
            if not thread.ident:
                thread.start()
                _wait_for(lambda: lock.n_waiting == 1)
    thread.join(10)
    assert order[:2] == ["greedy", "waiting"]


def test_only_one_thread_holds_the_lock() -> None:
    lock = FairLock()
    inside = 0
    most = 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            with lock:
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert most == 1


def test_lock_is_released_when_the_block_raises() -> None:
    lock = FairLock()
    with pytest.raises(ZeroDivisionError), lock:
        _ = 1 / 0
    with lock:
        pass


def test_nested_lock_of_one_thread_raises_instead_of_deadlocking() -> None:
    lock = FairLock()
    with lock, pytest.raises(RuntimeError, match="inside a write"), lock:
        pass
    with lock:
        pass
