"""Leases: one holder at a time, on the database clock."""

from storage.database.engine import Database
from storage.database.leases import Leases
from tests.integration.control.source_commits import run_concurrently
from tests.integration.control.worker_bench import wait_until


def test_a_lease_has_one_holder_until_it_is_released(db: Database) -> None:
    leases = Leases(db)
    assert leases.acquire("control:a", "me", 60)
    assert leases.acquire("control:a", "me", 60)
    assert not leases.acquire("control:a", "you", 60)
    assert leases.acquire("control:b", "you", 60)
    leases.release("control:a", "you")  # held by another
    assert not leases.acquire("control:a", "you", 60)
    leases.release("control:a", "me")
    assert leases.acquire("control:a", "you", 60)


def test_one_of_many_concurrent_acquirers_gets_a_new_lease(db: Database) -> None:
    leases = Leases(db)
    held = run_concurrently(*(lambda n=n: leases.acquire("control:a", f"holder {n}", 60) for n in range(5)))
    assert sorted(held) == [False, False, False, False, True]


def test_an_expired_lease_is_taken_over_and_cannot_be_renewed(db: Database) -> None:
    leases = Leases(db)
    assert leases.acquire("control:a", "frozen", 0.2)
    wait_until(lambda: leases.acquire("control:a", "you", 60))
    assert not leases.acquire("control:a", "frozen", 60)


def test_a_lease_from_before_the_clock_was_set_back_blocks_no_holder(db: Database) -> None:
    leases = Leases(db)
    assert leases.acquire("control:a", "gone", 3600)
    assert leases.acquire("control:a", "you", 60)
    assert not leases.acquire("control:a", "gone", 60)
