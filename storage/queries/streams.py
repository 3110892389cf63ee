"""The streams that the database knows: names, and numbers that change with them."""

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.database.tables import incident_verbs, streams, transitions

_NEWEST_ROWS = 500


def read_stream_names(connection: Connection) -> list[str]:
    """Return the names of all streams, sorted."""
    return list(connection.scalars(sa.select(streams.c.name).order_by(streams.c.name)))


def find_stream_id(connection: Connection, name: str) -> int | None:
    """Return the id of a stream; None if it is not stored."""
    found: int | None = connection.execute(sa.select(streams.c.id).where(streams.c.name == name)).scalar()
    return found


def read_basis(connection: Connection, name: str) -> tuple[int | None, int] | None:
    """Return the last tick of a stream and a number that grows with each change of its calibration or models."""
    row = connection.execute(
        sa.select(streams.c.last_tick_us, streams.c.acceptances, streams.c.revision).where(streams.c.name == name)
    ).first()
    return None if row is None else (row.last_tick_us, row.acceptances + row.revision)


def read_revisions(connection: Connection) -> dict[str, tuple[int | None, ...]]:
    """Return numbers of each stream that change when its windows, thresholds, models or incidents change.

    Three statements; of the transitions and verbs only the newest ones are read.
    """
    query = sa.select(
        streams.c.id,
        streams.c.name,
        streams.c.sealed_until_us,
        streams.c.last_tick_us,
        streams.c.revision,
        streams.c.acceptances,
    )
    rows = connection.execute(query).all()
    newest = [_read_newest(connection, table) for table in (transitions, incident_verbs)]
    return {row.name: (*tuple(row)[2:], *(ids.get(row.id) for ids in newest)) for row in rows}


def _read_newest(connection: Connection, table: sa.Table) -> dict[int, int]:
    """Return the newest row id of each stream among the newest rows of a table."""
    last = sa.select(sa.func.max(table.c.id)).scalar_subquery()
    query = (
        sa.select(table.c.stream_id, sa.func.max(table.c.id).label("newest"))
        .where(table.c.id > last - _NEWEST_ROWS)
        .group_by(table.c.stream_id)
    )
    return {row.stream_id: row.newest for row in connection.execute(query)}


def read_judged_until(connection: Connection, stream_id: int) -> int | None:
    """Return the event time up to which windows are sealed; None before the first."""
    found: int | None = connection.execute(
        sa.select(streams.c.sealed_until_us).where(streams.c.id == stream_id)
    ).scalar()
    return found
