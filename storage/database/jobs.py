"""The latest success and failure of each scheduled job, timed by the database's clock."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.database.engine import Database
from storage.database.tables import jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """The state of a job; `last_error` is None if its latest run succeeded."""

    name: str
    succeeded_at_us: int | None
    failed_at_us: int | None
    last_error: str | None


def record_job_result(db: Database, name: str, error: str | None) -> None:
    """Record that a job has succeeded (`error` is None) or failed."""
    column = "succeeded_at_us" if error is None else "failed_at_us"
    with db.write() as connection:
        values = {column: db.now_us(connection), "last_error": error}
        connection.execute(
            db.insert(jobs).values(name=name, **values).on_conflict_do_update(index_elements=["name"], set_=values)
        )


def read_job_states(connection: Connection) -> list[JobState]:
    """Return the state of every job that has ever run, ordered by name."""
    return [JobState(**row) for row in connection.execute(sa.select(jobs).order_by(jobs.c.name)).mappings()]
