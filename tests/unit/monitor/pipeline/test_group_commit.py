"""Group commits: their pace, the buffers that are due, and commits of unknown outcome."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from monitor.pipeline.group_commit import MAX_INTERVAL_S, MIN_INTERVAL_S, CommitPace, select_due, store_group
from monitor.pipeline.partition_buffer import COMMIT_EVENTS, PartitionBuffer
from monitor.pipeline.retry import StorageRetry
from storage.database.errors import CommitUnknown
from storage.ledger.commit import CommitOutcome, Committed, Fenced
from tests.unit.monitor.pipeline.pending_records import claimed, control, records

COMMITTED = Committed(control=control())


@pytest.mark.parametrize(
    ("duration_s", "interval_s"), [(0.0, MIN_INTERVAL_S), (0.02, 0.2), (0.004, MIN_INTERVAL_S), (5.0, MAX_INTERVAL_S)]
)
def test_the_next_group_starts_after_ten_durations_of_the_last_one_within_bounds(
    duration_s: float, interval_s: float
) -> None:
    pace = CommitPace.after(7.0, duration_s)
    assert pace.next_start_s == pytest.approx(7.0 + interval_s)
    assert not pace.is_open(7.0 + 0.9 * interval_s)
    assert pace.is_open(7.0 + interval_s)


def test_many_streams_of_a_process_commit_less_often() -> None:
    assert CommitPace.after(7.0, 0.001, n_streams=50).next_start_s == pytest.approx(7.5)
    assert CommitPace.after(7.0, 0.001, n_streams=500).next_start_s == pytest.approx(7.0 + MAX_INTERVAL_S)


def test_the_first_group_starts_at_once() -> None:
    assert CommitPace().is_open(0.0)


def pending(*minutes: float, dead: int = 0, at_s: float = 0.0) -> PartitionBuffer:
    buffer = claimed()
    buffer.add(records(*minutes, dead=dead), now_s=at_s)
    return buffer


def test_all_pending_records_are_due_when_a_group_may_start_in_the_order_of_their_wait() -> None:
    second, first, empty = pending(0, at_s=3.0), pending(0, at_s=2.0), claimed()
    assert select_due([second, empty, first], control(), 5.0, is_open=True) == [first, second]
    assert select_due([second, empty, first], control(), 5.0, is_open=False) == []


def test_full_and_ended_buffers_do_not_wait_for_the_next_group() -> None:
    full, ended, small = pending(dead=COMMIT_EVENTS), pending(0), pending(0)
    ended.end()
    assert select_due([small, full, ended], control(), 0.0, is_open=False) == [full, ended]


class Commits:
    """A ledger whose answers are given: an outcome for each source, or an error."""

    def __init__(self, *answers: dict[int, Any] | Exception) -> None:
        self._answers = list(answers)
        self.sent: list[list[int]] = []

    def commit_group(self, commits: Sequence[Any]) -> list[CommitOutcome]:
        self.sent.append([commit.source_id for commit in commits])
        return self._answer(commits)

    def find_outcomes(self, commits: Sequence[Any]) -> list[Any]:
        return self._answer(commits)

    def _answer(self, commits: Sequence[Any]) -> list[Any]:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [answer[commit.source_id] for commit in commits]


class SourceCommit:
    """The part of a commit that a group needs."""

    def __init__(self, source_id: int) -> None:
        self.source_id = source_id


def outcomes_of(ledger: Commits, *source_ids: int) -> list[CommitOutcome]:
    send: Callable[..., list[CommitOutcome]] = store_group
    return send(ledger, StorageRetry(threading.Event(), 1.0), [SourceCommit(source_id) for source_id in source_ids])


def test_commits_of_unknown_outcome_that_are_not_stored_are_repeated() -> None:
    unknown = CommitUnknown("no answer")
    ledger = Commits(unknown, {1: COMMITTED, 2: None, 3: Fenced()}, unknown, {2: None}, {2: COMMITTED})
    assert outcomes_of(ledger, 3, 1, 2) == [Fenced(), COMMITTED, COMMITTED]
    assert ledger.sent == [[3, 1, 2], [2], [2]]
