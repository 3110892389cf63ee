"""Storage room: when the jobs on the wall clock last succeeded and last failed, on the database's clock."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.database.engine import Database
from storage.database.tables import jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """One job; `last_error` is set as long as its latest run failed."""

    name: str
    succeeded_at_us: int | None
    failed_at_us: int | None
    last_error: str | None


def record_job_result(db: Database, name: str, error: str | None) -> None:
    """Keep that a job has just succeeded, or why it failed."""
    at = "succeeded_at_us" if error is None else "failed_at_us"
    with db.write() as connection:
        values = {at: db.now_us(connection), "last_error": error}
        connection.execute(
            db.insert(jobs).values(name=name, **values).on_conflict_do_update(index_elements=["name"], set_=values)
        )


def read_job_states(connection: Connection) -> list[JobState]:
    """Return all jobs that ever reported, by name."""
    return [JobState(**row) for row in connection.execute(sa.select(jobs).order_by(jobs.c.name)).mappings()]
