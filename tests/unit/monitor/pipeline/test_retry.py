"""Calls to an unavailable database are repeated; a commit of unknown outcome is not."""

import threading

import pytest

from config.errors import StorageUnavailable
from monitor.pipeline import retry
from monitor.pipeline.retry import StorageRetry
from storage.database.errors import CommitUnknown


class Call:
    """A call that raises its errors in order and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)

    def __call__(self) -> str:
        if self._errors:
            raise self._errors.pop(0)
        return "answer"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_INITIAL_BACKOFF_S", 0.0)


def test_a_repeatable_call_is_repeated_also_after_an_unknown_outcome() -> None:
    call = Call(StorageUnavailable("away"), CommitUnknown("unknown"))
    assert StorageRetry(threading.Event(), 1.0).retry_until_answered(call) == "answer"


def test_a_commit_of_unknown_outcome_is_raised() -> None:
    call = Call(StorageUnavailable("away"), CommitUnknown("unknown"))
    with pytest.raises(CommitUnknown):
        StorageRetry(threading.Event(), 1.0).retry_until_answered(call, repeatable=False)


def test_retries_end_when_the_drain_time_has_passed() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(StorageUnavailable):
        StorageRetry(stop, -1.0).retry_until_answered(Call(StorageUnavailable("away")))
