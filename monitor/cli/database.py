"""Read access to the database and the history of the settings, and checks of stream names against them."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from config.errors import ConfigError
from config.settings import Settings
from storage.database.engine import Database
from storage.history import History


@contextmanager
def open_history(settings: Settings) -> Iterator[History]:
    """Open the history in the configured database."""
    with History(settings.database.url) as history:
        yield history


@contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """Open the configured database read-only and check its schema."""
    with Database(settings.database.url, read_only=True) as db:
        db.check_schema()
        yield db


def has_history(settings: Settings, stored: Sequence[str], name: str) -> bool:
    """Return whether a stream has stored rows; a configured stream may have none yet.

    Args:
        settings: The settings.
        stored: Names of the stored streams; a stream that is no longer configured keeps its history.
        name: Name of the stream on the command line.

    Raises:
        ConfigError: The name is neither configured nor stored; the message suggests the closest name.
    """
    if name in stored:
        return True
    if name in settings.streams:
        return False
    known_streams = list(dict.fromkeys([*settings.streams, *stored]))
    near = difflib.get_close_matches(name, known_streams, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the streams are {', '.join(known_streams)}"
    raise ConfigError(f"there is no stream {name!r}; {hint}")


def format_no_history(name: str) -> str:
    """Return the message for a configured stream that has never run."""
    return f"Stream {name} has no history yet: `outrider run {name}` starts it."


def format_latest_incidents(settings: Settings) -> str:
    """Return a text with the ids of the latest incidents, for an error about an unknown id."""
    with open_history(settings) as history:
        ids = [int(each) for batch in history.incidents(limit=5) for each in batch["id"]]
    return f"the latest are {', '.join(map(str, ids))}" if ids else "there are none yet"
