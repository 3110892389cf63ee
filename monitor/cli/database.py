"""The command line: the stored history for reading, and the streams that a command may name."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from config.errors import ConfigError
from config.settings import Settings
from storage.database.engine import Database
from storage.history import History


@contextmanager
def open_history(settings: Settings) -> Iterator[History]:
    """Open the history that the settings name."""
    with History(settings.database.url) as history:
        yield history


@contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """Open the database that the settings name, for reading, and check its schema."""
    with Database(settings.database.url, read_only=True) as db:
        db.check_schema()
        yield db


def has_history(settings: Settings, stored: Sequence[str], name: str) -> bool:
    """Return whether a stream has rows; one that is configured may have none yet.

    Args:
        settings: The settings.
        stored: Names of the stored streams; a stream that is no longer configured keeps its history.
        name: What was given on the command line.

    Raises:
        ConfigError: The name is neither configured nor stored; names the nearest one.
    """
    if name in stored:
        return True
    if name in settings.streams:
        return False
    known = list(dict.fromkeys([*settings.streams, *stored]))
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the streams are {', '.join(known)}"
    raise ConfigError(f"there is no stream {name!r}; {hint}")


def format_no_history(name: str) -> str:
    """Return what to say of a stream that is configured and has never run."""
    return f"Stream {name} has no history yet: `outrider run {name}` starts it."


def format_latest_incidents(settings: Settings) -> str:
    """Return which incidents there are, for somebody who named another one."""
    with open_history(settings) as history:
        ids = [int(each) for batch in history.incidents(limit=5) for each in batch["id"]]
    return f"the latest are {', '.join(map(str, ids))}" if ids else "there are none yet"
