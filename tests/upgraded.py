"""Databases with the newest schema, without the revisions for each SQLite file."""

import functools
import tempfile
from pathlib import Path

from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade


def give_newest_schema(url: str) -> None:
    """Give an empty database the newest schema; a SQLite file that does not exist becomes a copy of an upgraded one."""
    file = Path(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:") and not file.exists():
        file.write_bytes(_upgraded_file())
        return
    with Database(url) as database:
        upgrade(database)


@functools.cache
def _upgraded_file() -> bytes:
    """Return the content of an empty SQLite file with the newest schema; made once in a process."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "upgraded.db"
        with Database(f"sqlite:///{file}") as database:
            upgrade(database)
        return file.read_bytes()
