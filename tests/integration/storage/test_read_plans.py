"""No read of pages and API reads a row per event: the statements and their plans, on both databases."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from config.time_format import DAY_US, WEEK_US
from monitor.models.feature_histograms import load_feature_histograms
from storage.database.engine import Database
from storage.queries.drift_cells import list_horizons, read_drift_cells
from storage.queries.model_facts import read_ledger, read_models
from storage.queries.rollups import COARSE_US, FINE_US, read_bars, read_incident_marks, read_rollups, read_windows
from storage.queries.similar_incidents import read_similar_incidents
from tests.integration.storage.commits import T0, ClaimedStream

EVENT_TABLES = re.compile(r"\b(FROM|JOIN|SCAN|SEARCH|on)\s+(score\w*|outlier\w*|dead_letter\w*)\b")
SPAN = {"from_us": T0, "until_us": T0 + WEEK_US}
READS = {
    "rollups": lambda conn, id_: read_rollups(conn, id_, resolution_us=COARSE_US, **SPAN),
    "fine rollups": lambda conn, id_: read_rollups(conn, id_, resolution_us=FINE_US, **SPAN),
    "windows": lambda conn, id_: read_windows(conn, id_, **SPAN),
    "bars": lambda conn, id_: read_bars(conn, [id_], **SPAN),
    "marks": lambda conn, id_: read_incident_marks(conn, [id_], **SPAN),
    "drift cells": lambda conn, id_: read_drift_cells(conn, id_, horizon_us=DAY_US, **SPAN),
    "horizons": list_horizons,
    "models": read_models,
    "ledger": lambda conn, id_: read_ledger(conn, [id_], kinds=["spike"], **SPAN),
    "similar incidents": lambda conn, _: read_similar_incidents(conn, 1),
}


@contextmanager
def _recorded(db: Database) -> Iterator[list[tuple[str, Any]]]:
    """Yield the list of the statements that are run in the block, with their parameters."""
    statements: list[tuple[str, Any]] = []

    def record(_conn: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: Any) -> None:
        statements.append((statement, parameters))

    with db.read() as conn:
        engine = conn.engine
    sa.event.listen(engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        sa.event.remove(engine, "before_cursor_execute", record)


def _explain(db: Database, statement: str, parameters: Any) -> str:
    keyword = "EXPLAIN QUERY PLAN" if db.dialect == "sqlite" else "EXPLAIN"
    with db.read() as conn:
        rows = conn.exec_driver_sql(f"{keyword} {statement}", parameters).all()
    return "\n".join(str(row[-1]) for row in rows)


@pytest.mark.parametrize("name", READS)
def test_read_touches_no_row_of_events_and_uses_indexes(feed: ClaimedStream, name: str) -> None:
    with _recorded(feed.db) as statements, feed.db.read() as conn:
        READS[name](conn, feed.stream_id)
    assert statements
    for statement, parameters in statements:
        plan = _explain(feed.db, statement, parameters)
        assert not EVENT_TABLES.search(statement)
        assert not EVENT_TABLES.search(plan)
        if feed.db.dialect == "sqlite":  # PostgreSQL reads the small tables of a test as a whole
            assert not re.search(r"SCAN (windows|window_rollups|drift_cells|shadow_windows|calibrations)\b", plan)


def test_feature_histograms_touch_no_row_of_events(feed: ClaimedStream) -> None:
    with _recorded(feed.db) as statements:
        load_feature_histograms(feed.db, feed.stream_id, **SPAN)
    assert statements
    assert not any(EVENT_TABLES.search(statement) for statement, _ in statements)
