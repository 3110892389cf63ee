"""The slots of a connection pool: no more holders than slots, in the order in which they asked."""

import threading

from storage.database.fair_slots import FairSlots


def test_threads_get_slots_in_the_order_in_which_they_asked() -> None:
    slots = FairSlots(1)
    order: list[int] = []
    threads = []

    def hold(number: int) -> None:
        with slots.hold():
            order.append(number)

    with slots.hold():
        for number in range(20):
            threads.append(threading.Thread(target=hold, args=(number,)))
            threads[-1].start()
            while slots.n_waiting <= number:
                pass
    for thread in threads:
        thread.join(10)
    assert order == list(range(20))


def test_never_more_threads_than_slots_hold_one() -> None:
    slots, mutex = FairSlots(3), threading.Lock()
    held, most = [0], [0]

    def hold() -> None:
        for _ in range(200):
            with slots.hold():
                with mutex:
                    held[0] += 1
                    most[0] = max(most[0], held[0])
                with mutex:
                    held[0] -= 1

    threads = [threading.Thread(target=hold) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (held[0], slots.n_waiting) == (0, 0)
    assert 1 <= most[0] <= 3


def test_a_thread_that_holds_a_slot_does_not_wait_for_itself() -> None:
    slots = FairSlots(1)
    with slots.hold(), slots.hold():
        pass
    with slots.hold():
        pass
    assert slots.n_waiting == 0


def test_a_block_may_be_left_by_another_thread() -> None:
    slots = FairSlots(1)
    block = slots.hold()
    block.__enter__()
    thread = threading.Thread(target=block.__exit__, args=(None, None, None))
    thread.start()
    thread.join(10)
    with slots.hold():
        assert slots.n_waiting == 0
