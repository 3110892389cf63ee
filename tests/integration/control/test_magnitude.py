"""One event far above all others opens an incident with its commit, on both databases, and a replay gives its rows."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np

from consumers.decoded_batch import DecodedBatch
from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from tests.integration.control.simulation import (
    SimulatedWriter,
    SimulationSettings,
    make_control_plane,
    make_records,
    read_decisions,
    run_at_random,
)
from tests.integration.control.test_early import comparable
from tests.integration.control.worker_bench import MINUTE, SECOND, T0, fetch_rows, open_stream
from tests.rules import make_rules

AT_US = T0 + 1_065 * SECOND
"""The time of the event: fifteen seconds after the start of its window."""


def with_one_event(records: DecodedBatch) -> DecodedBatch:
    """Return the records with one event 25 nats above the median, and no outlier beside it."""
    features = np.clip(records.events.features, -2.5, 2.5)
    at = int(np.argmin(np.abs(records.events.times_us - AT_US)))
    features[at] = (7.2, 0.0)
    return replace(records, events=replace(records.events, features=features))


ONE_EVENT = SimulationSettings(
    rules=make_rules(size_us=MINUTE, grace_us=5 * SECOND, ahead_us=2 * MINUTE, max_future_us=None),
    refresh=timedelta(minutes=5),
    look_back=timedelta(minutes=30),
    sources=[with_one_event(make_records(21, n=1_500, span_s=1_500))],
    kinds=frozenset({"spike"}),
    per_week=100.0,
)


def test_one_event_opens_an_incident_with_its_commit(db: Database) -> None:
    stream_id = open_stream(db, 1, ONE_EVENT.rules)
    writer, plane = SimulatedWriter(db, stream_id, ONE_EVENT, 0), make_control_plane(db, stream_id, ONE_EVENT)
    opened_at = None
    stored = "SELECT max(event_time_us) FROM scores WHERE energy > 20"
    while not writer.ended and opened_at is None:
        writer.commit(10)
        plane.run_due()
        if fetch_rows(db, stored) != [(None,)]:
            opened_at = fetch_rows(
                db,
                "SELECT i.kind, i.window_start_us, s.sealed_until_us FROM incidents i "
                "JOIN streams s ON s.id = i.stream_id WHERE i.status = 'open' AND i.kind = 'spike'",
            )
    window_us = AT_US // MINUTE * MINUTE
    assert opened_at == [("spike", window_us, window_us)], "open in the same cycle, before the window is sealed"
    while not writer.ended:
        writer.commit(50)
        plane.run_due()
    ((summary, details),) = fetch_rows(db, "SELECT summary, details FROM incidents WHERE kind = 'spike'")
    opened = json.loads(str(details))["opened"]
    assert (opened["test"], opened["outliers"]) == ("magnitude", 1)
    assert opened["magnitude"]["energy"] > opened["magnitude"]["limit"]
    assert "an event with an energy of" in str(summary)
    ((row,),) = fetch_rows(db, f"SELECT details FROM windows WHERE window_start_us = {window_us}")
    assert json.loads(str(row))["test"] == "magnitude"
    stored_tails = fetch_rows(db, "SELECT details FROM thresholds ORDER BY id")
    tails = [tail for (each,) in stored_tails if (tail := json.loads(str(each))["tail"]) is not None]
    assert len({tail["level"] for tail in tails}) > 2, "the law moves with the look-back"
    # The window is clipped: a further event like it would open an incident as well.
    assert max(tail["ln_s"][-1] for tail in tails) < -10


def test_any_order_of_steps_and_restarts_gives_the_same_rows(db: Database, tmp_path: Path) -> None:
    run_at_random(db, ONE_EVENT, seed=5)
    with Database(f"sqlite:///{tmp_path / 'other.db'}") as other:
        upgrade(other)
        run_at_random(other, ONE_EVENT, seed=6)
        expected = read_decisions(other)
    found = read_decisions(db)
    del found["scores"]  # the databases write float32 in different ways
    assert [row[0] for row in found["incidents"]].count("spike") == 1
    for name, rows in found.items():
        assert comparable(rows) == comparable(expected[name]), name
