"""Rows inserted through the drivers are read back bit for bit."""

from collections.abc import Iterator

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.database.engine import Database
from storage.database.partitions import ensure_score_partitions
from storage.database.tables import scores
from storage.ledger.bulk import insert_scores, stage_scores
from storage.ledger.commit import ScoreColumns

_LATEST_US = 9_214_646_400_000_000  # 2262-01-01
_text = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40)
_row = st.tuples(
    st.integers(0, 2**63 - 1),
    st.integers(0, _LATEST_US),
    st.floats(width=32, allow_nan=False),
    st.integers(1, 2**31 - 1),
    _text,
    _text,
)


@pytest.fixture
def today(db: Database) -> Iterator[int]:
    ensure_score_partitions(db)
    with db.read() as connection:
        yield db.now_us(connection)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    rows=st.lists(_row, min_size=1, max_size=30, unique_by=lambda row: row[0]),
    with_keys=st.booleans(),
    with_ids=st.booleans(),
)
def test_scores_round_trip_unchanged(
    db: Database,
    today: int,
    rows: list[tuple[int, int, float, int, str | None, str | None]],
    with_keys: bool,
    with_ids: bool,
) -> None:
    rows = sorted(rows)
    columns = ScoreColumns(
        offsets=np.array([row[0] for row in rows], np.int64),
        times_us=np.array([row[1] for row in rows], np.int64),
        energies=np.array([row[2] for row in rows], np.float32),
        threshold_ids=np.array([row[3] for row in rows], np.int64),
        keys=[row[4] for row in rows] if with_keys else None,
        ids=[row[5] for row in rows] if with_ids else None,
    )
    with db.write() as connection:
        connection.execute(sa.delete(scores))
        stage_scores(connection, {7: columns})
        insert_scores(connection, today, {7: columns})
    with db.read() as connection:
        found = connection.execute(sa.select(scores).order_by(scores.c.source_offset)).all()
    assert [row.source_offset for row in found] == columns.offsets.tolist()
    assert [row.event_time_us for row in found] == columns.times_us.tolist()
    # Compared as float32: psycopg returns the shortest decimal, and SQLite drops the sign of a zero.
    assert np.array_equal(np.array([row.energy for row in found], np.float32), columns.energies)
    assert [row.threshold_id for row in found] == columns.threshold_ids.tolist()
    assert [row.key for row in found] == (columns.keys or [None] * len(rows))
    assert [row.event_id for row in found] == (columns.ids or [None] * len(rows))
    assert {(row.source_id, row.stored_at_us) for row in found} == {(7, today)}


@pytest.mark.parametrize("n", [1, 499, 500, 501, 1503])
def test_all_rows_of_a_batch_of_any_size_are_inserted(db: Database, today: int, n: int) -> None:
    offsets = np.arange(n)
    columns = ScoreColumns(
        offsets=offsets,
        times_us=offsets,
        energies=offsets.astype(np.float32),
        threshold_ids=np.ones(n, np.int64),
        keys=[str(i) for i in offsets],
    )
    with db.write() as connection:
        stage_scores(connection, {1: columns})
        insert_scores(connection, today, {1: columns})
    with db.read() as connection:
        assert connection.execute(
            sa.select(scores.c.source_offset, scores.c.key).order_by(scores.c.source_offset)
        ).all() == [(i, str(i)) for i in range(n)]
