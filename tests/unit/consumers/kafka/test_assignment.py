"""Delivering partitions as a function of assignments, seeks and pauses."""

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


def test_assigned_partition_delivers_only_after_seek() -> None:
    assignment = assigned(A, B)
    assert assignment.delivering == frozenset()
    assignment.seek(A, 5)
    assert assignment.delivering == {A}
    assert assignment.next_offset(A) == 5
    assert assignment.next_offset(B) is None


def test_paused_partition_keeps_its_position() -> None:
    assignment = assigned(A)
    assignment.seek(A, 5)
    assignment.set_paused({A})
    assert assignment.delivering == frozenset()
    assignment.set_paused(frozenset())
    assert assignment.delivering == {A}
    assert assignment.next_offset(A) == 5


def test_partition_can_be_paused_before_it_is_assigned() -> None:
    assignment = Assignment()
    assignment.set_paused({A})
    assignment.apply_changes([("assigned", frozenset({A}))])
    assignment.seek(A, 0)
    assert assignment.delivering == frozenset()


def test_seek_of_a_revoked_partition_is_a_key_error() -> None:
    assignment = assigned(A)
    assignment.apply_changes([("revoked", frozenset({A}))])
    with pytest.raises(KeyError):
        assignment.seek(A, 0)


def test_revoked_and_reassigned_partition_is_in_both_sets_and_needs_a_seek() -> None:
    assignment = assigned(A, B)
    assignment.seek(A, 5)
    came, went = assignment.apply_changes([("revoked", frozenset({A, B})), ("assigned", frozenset({A}))])
    assert (came, went) == ({A}, {A, B})
    assert assignment.delivering == frozenset()


def test_partition_assigned_and_revoked_between_polls_is_not_reported() -> None:
    came, went = assigned(A).apply_changes([("assigned", frozenset({C})), ("revoked", frozenset({C}))])
    assert C not in came
    assert C in went


def test_stopped_partition_stays_assigned() -> None:
    assignment = assigned(A)
    assignment.seek(A, 5)
    assignment.stop({A})
    assert assignment.delivering == frozenset()
    assert assignment.partitions == {A}


changes = st.lists(st.tuples(st.sampled_from(["assigned", "revoked"]), st.frozensets(st.sampled_from([A, B, C]))))


@pytest.mark.slow
@given(changes)
def test_reported_changes_add_up_to_the_assignment(history: list[AssignmentChange]) -> None:
    assignment, owned = Assignment(), set()
    for change in history:
        came, went = assignment.apply_changes([change])
        owned = (owned - went) | came
    assert owned == assignment.partitions
    at_once = Assignment()
    came, _ = at_once.apply_changes(history)
    assert came == at_once.partitions == assignment.partitions
