"""Reads that the daemon repeats cost the same, whatever the number of stored rows."""

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from storage.control.drift import DriftStore
from storage.control.models import find_next_activation
from storage.control.outbox import Outbox
from storage.control.shadows import ShadowStore
from storage.control.silence import SilenceStore
from storage.control.thresholds import ThresholdStore
from storage.control.window_facts import read_window_facts
from storage.control.windows import WindowStore
from storage.database import tables
from storage.database.engine import Database
from storage.queries.metric_facts import read_metric_facts
from tests.integration.storage.commits import MINUTE, T0, ClaimedStream, claim_stream, seal
from tests.integration.storage.step_counter import StepCounter
from tests.integration.storage.threshold_rows import add_threshold_rows

FEW, MANY = 100, 3_000


@pytest.fixture
def steps() -> Iterator[StepCounter]:
    """A counter of the instructions of every SQLite connection that is opened in the test."""
    with StepCounter() as counter:
        yield counter


def _fill(feed: ClaimedStream, n: int) -> int:
    """Store n rows in the tables that grow with the stream; return the start of the newest threshold row."""
    with feed.db.read() as connection:
        model_id = connection.scalar(sa.select(tables.models.c.id).where(tables.models.c.stream_id == feed.stream_id))
        first_id = (connection.scalar(sa.select(sa.func.max(tables.incidents.c.id))) or 0) + 1
    assert model_id is not None
    newest_us = add_threshold_rows(feed.db, feed.stream_id, model_id, n, first_us=T0, recorded_at_us=T0)
    with feed.db.write() as connection:
        threshold_id = connection.scalar(sa.select(sa.func.max(tables.thresholds.c.id)))
        numbers = range(n)
        stream = {"stream_id": feed.stream_id}
        connection.execute(
            sa.insert(tables.windows),
            [
                {"window_start_us": newest_us - (n - i) * MINUTE, "window_end_us": newest_us - (n - i - 1) * MINUTE}
                | stream
                | {"threshold_id": threshold_id, "events": 1, "outliers": 0, "late": 0, "dead": 0, "judged_at_us": T0}
                for i in numbers
            ],
        )
        connection.execute(
            sa.insert(tables.incidents),
            [
                {
                    "id": first_id + i,
                    "kind": "spike",
                    "severity": "warning",
                    "status": "resolved",
                    "summary": "",
                    **stream,
                }
                | {"window_start_us": T0, "opened_at_us": T0 + i * MINUTE, "resolved_at_us": T0 + i * MINUTE}
                | {"last_told_us": T0, "clean_windows": 3, "windows_fired": 1}
                for i in numbers
            ],
        )
        connection.execute(
            sa.insert(tables.transitions),
            [
                {"id": first_id + i, "incident_id": first_id + i, "transition": "opened", "summary": "", **stream}
                | {"window_start_us": T0, "at_us": T0, "recorded_at_us": T0}
                for i in numbers
            ],
        )
        connection.execute(
            sa.insert(tables.notifications),
            [
                {"id": f"n{first_id + i}", "incident_id": first_id + i, "transition_id": first_id + i}
                | {"channel": "log", "state": "delivered", "created_at_us": T0, "delivered_at_us": T0}
                for i in numbers
            ],
        )
        connection.execute(
            sa.insert(tables.calibrations),
            [{"at_us": newest_us - i, "state": "learned", "recorded_at_us": T0} | stream for i in numbers],
        )
        connection.execute(
            sa.insert(tables.gaps),
            [
                {"source_id": feed.claim.source_id, "from_offset": i, "to_offset": i + 1, "reason": "retention"}
                | {"recorded_at_us": T0, "event_time_us": T0, "incident_id": first_id}
                for i in numbers
            ],
        )
    seal(feed.db, feed.stream_id, newest_us)
    return newest_us


def _periodic_reads(db: Database, name: str, stream_id: int, newest_us: int) -> dict[str, Callable[[], object]]:
    thresholds, windows, drift, outbox = ThresholdStore(db), WindowStore(db), DriftStore(db), Outbox(db)

    def read(query: Callable[[sa.Connection], object]) -> object:
        with db.read() as connection:
            return query(connection)

    return {
        "tick facts": lambda: thresholds.tick_facts(stream_id),
        "newest threshold": lambda: thresholds.newest_threshold(stream_id),
        "firings": lambda: thresholds.count_firings(stream_id, ["spike"], newest_us - 50 * MINUTE, newest_us),
        "seal": lambda: windows.seal(stream_id, lambda _: None),
        "due windows": lambda: windows.due_windows(stream_id),
        "first open window": lambda: windows.first_open_window(stream_id),
        "facts of a window": lambda: read(lambda connection: read_window_facts(connection, stream_id, newest_us)),
        "drift facts": lambda: drift.drift_facts(stream_id, [10 * MINUTE]),
        "model of a window": lambda: drift.find_model_before(stream_id, newest_us),
        "arrival facts": lambda: SilenceStore(db).arrival_facts(stream_id),
        "next activation": lambda: read(lambda connection: find_next_activation(connection, stream_id)),
        "facts of metrics": lambda: read_metric_facts(db, [name]),
        "shadow model": lambda: ShadowStore(db).current(stream_id),
        "due notification": lambda: outbox.claim("log", 1),
        "notifications of unknown channels": lambda: outbox.give_up_unknown_channels({"log"}, 1),
    }


def test_periodic_reads_cost_the_same_with_3000_rows_as_with_100(upgraded_sqlite_url: str, steps: StepCounter) -> None:
    costs: dict[str, list[int]] = {}
    with Database(upgraded_sqlite_url) as db:
        for name, n in (("few", FEW), ("many", MANY)):
            feed = claim_stream(db, name)
            newest_us = _fill(feed, n)
            for read_name, read in _periodic_reads(db, name, feed.stream_id, newest_us).items():
                read()
                costs.setdefault(read_name, []).append(steps.count(read))
    assert [name for name, (few, many) in costs.items() if many > few + 20] == []


def test_an_activation_is_later_than_every_threshold_row(feed: ClaimedStream) -> None:
    newest_us = _fill(feed, FEW)
    with feed.db.write() as connection:
        connection.execute(
            sa.update(tables.thresholds)
            .where(tables.thresholds.c.valid_from_us == T0 + MINUTE * 5)
            .values(computed_at_us=newest_us + 7)
        )
        activation = find_next_activation(connection, feed.stream_id)
    assert activation.computed_at_us == newest_us + 8
    assert activation.valid_from_us > newest_us
