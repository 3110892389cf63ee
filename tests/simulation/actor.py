"""Threads of which one runs at a time: each runs from one transaction to the next, when the simulation resumes it."""

import threading
from collections.abc import Callable

_current = threading.local()


class ActorKilled(BaseException):
    """The process of an actor was killed: its memory is lost at this point."""


class Actor:
    """A loop in its own thread that waits before and after each transaction and between its turns.

    Args:
        name: Name of the thread.
        run_turn: One turn of the loop.
    """

    def __init__(self, name: str, run_turn: Callable[[], object]) -> None:
        self.name = name
        self.turns = 0
        self._run_turn = run_turn
        self._resumed = threading.Semaphore(0)
        self._paused = threading.Semaphore(0)
        self._killed = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def resume(self) -> None:
        """Run the actor up to its next pause.

        Raises:
            BaseException: The error that ended the actor.
        """
        self._resumed.release()
        self._paused.acquire()
        if self._failure is not None:
            raise self._failure

    def run_turn(self) -> None:
        """Run the actor to the end of its present turn."""
        before = self.turns
        while self.turns == before:
            self.resume()

    def kill(self) -> None:
        """End the actor where it waits."""
        self._killed = True
        self._resumed.release()
        self._thread.join()

    def pause(self) -> None:
        """Wait for the next `resume`; called in the thread of the actor."""
        self._paused.release()
        self._resumed.acquire()
        if self._killed:
            raise ActorKilled

    def _run(self) -> None:
        _current.actor = self
        self._resumed.acquire()
        try:
            while not self._killed:
                self._run_turn()
                self.turns += 1
                self.pause()
        except ActorKilled:
            pass
        except BaseException as failure:  # noqa: BLE001 - the failure belongs to the thread that resumes
            self._failure = failure
        self._paused.release()


def pause_current_actor() -> None:
    """Let the actor of this thread wait for its next `resume`; do nothing in other threads, and inside of a lock."""
    actor: Actor | None = getattr(_current, "actor", None)
    if actor is not None and not getattr(_current, "locks", 0):
        actor.pause()


class ActorLock:
    """A lock of several actors: its holder does not wait, so that no other actor can find it locked."""

    def __enter__(self) -> None:
        _current.locks = getattr(_current, "locks", 0) + 1

    def __exit__(self, *_: object) -> None:
        _current.locks -= 1
