"""Tests: which partitions deliver, as a function of what was assigned, sought and held."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.batch import Partition
from consumers.kafka.assignment import Assignment, AssignmentChange

A, B, C = (Partition(topic="t", partition=number) for number in range(3))


def assigned(*partitions: Partition) -> Assignment:
    assignment = Assignment()
    assignment.apply_changes([("assigned", frozenset(partitions))])
    return assignment


def test_an_assigned_partition_delivers_only_after_it_was_sought() -> None:
    assignment = assigned(A, B)
    assert assignment.delivering == frozenset()
    assignment.seek(A, 5)
    assert assignment.delivering == {A}
    assert assignment.next_offset(A) == 5
    assert assignment.next_offset(B) is None


def test_a_held_partition_keeps_its_position() -> None:
    assignment = assigned(A)
    assignment.seek(A, 5)
    assignment.set_paused({A})
    assert assignment.delivering == frozenset()
    assignment.set_paused(frozenset())
    assert assignment.delivering == {A}
    assert assignment.next_offset(A) == 5


def test_a_partition_can_be_held_before_it_is_assigned() -> None:
    assignment = Assignment()
    assignment.set_paused({A})
    assignment.apply_changes([("assigned", frozenset({A}))])
    assignment.seek(A, 0)
    assert assignment.delivering == frozenset()


def test_a_revoked_partition_cannot_be_sought() -> None:
    assignment = assigned(A)
    assignment.apply_changes([("revoked", frozenset({A}))])
    with pytest.raises(KeyError):
        assignment.seek(A, 0)


def test_a_partition_taken_and_given_back_is_both_and_must_be_sought_again() -> None:
    assignment = assigned(A, B)
    assignment.seek(A, 5)
    came, went = assignment.apply_changes([("revoked", frozenset({A, B})), ("assigned", frozenset({A}))])
    assert (came, went) == ({A}, {A, B})
    assert assignment.delivering == frozenset()


def test_a_partition_given_and_taken_before_anybody_looked_never_came() -> None:
    came, went = assigned(A).apply_changes([("assigned", frozenset({C})), ("revoked", frozenset({C}))])
    assert C not in came
    assert C in went


def test_a_stopped_partition_stays_assigned() -> None:
    assignment = assigned(A)
    assignment.seek(A, 5)
    assignment.stop({A})
    assert assignment.delivering == frozenset()
    assert assignment.partitions == {A}


changes = st.lists(st.tuples(st.sampled_from(["assigned", "revoked"]), st.frozensets(st.sampled_from([A, B, C]))))


@given(changes)
def test_what_came_and_went_tells_the_caller_all_partitions_that_are_its_own(history: list[AssignmentChange]) -> None:
    assignment, owned = Assignment(), set()
    for change in history:
        came, went = assignment.apply_changes([change])
        owned = (owned - went) | came
    assert owned == assignment.partitions
    at_once = Assignment()
    came, _ = at_once.apply_changes(history)
    assert came == at_once.partitions == assignment.partitions
