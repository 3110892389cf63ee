"""Writers take turns in the order in which they came."""

import threading
import time
from collections.abc import Callable

import pytest

from storage.database.fair_lock import FairLock


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"


def test_waiting_threads_are_served_in_the_order_in_which_they_came() -> None:
    turns = FairLock()
    served: list[int] = []

    def work(number: int) -> None:
        with turns:
            served.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    with turns:
        for number, thread in enumerate(threads):
            thread.start()
            _wait_for(lambda wanted=number + 1: turns.n_waiting == wanted)  # type: ignore[misc]
    for thread in threads:
        thread.join(10)
    assert served == list(range(20))


def test_a_thread_that_comes_again_and_again_does_not_overtake_one_that_waits() -> None:
    turns = FairLock()
    order: list[str] = []

    def patient() -> None:
        with turns:
            order.append("patient")

    waiting = threading.Thread(target=patient)
    for _ in range(3):
        with turns:
            order.append("greedy")
            if not waiting.ident:
                waiting.start()
                _wait_for(lambda: turns.n_waiting == 1)
    waiting.join(10)
    assert order[:2] == ["greedy", "patient"]


def test_only_one_thread_is_inside() -> None:
    turns = FairLock()
    inside = 0
    most = 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            with turns:
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert most == 1


def test_a_block_that_raises_gives_its_turn_back() -> None:
    turns = FairLock()
    with pytest.raises(ZeroDivisionError), turns:
        _ = 1 / 0
    with turns:
        pass


def test_a_turn_inside_a_turn_of_the_same_thread_is_refused_instead_of_waiting_for_ever() -> None:
    turns = FairLock()
    with turns, pytest.raises(RuntimeError, match="inside a write"), turns:
        pass
    with turns:
        pass
