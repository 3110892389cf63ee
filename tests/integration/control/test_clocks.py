"""Wrong clocks of single devices: no event of the others is late, and a later burst is found, in any reading pieces."""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pytest

from consumers.decoded_batch import DeadLetters, DecodedBatch, Events
from storage.database.engine import Database
from tests.integration.control.simulation import SimulationSettings, run_in_turn
from tests.integration.control.worker_bench import MINUTE, SECOND, T0, count_rows, fetch_rows, partition
from tests.rules import make_rules

RULES = make_rules(size_us=10 * SECOND, grace_us=5 * SECOND, ahead_us=2 * MINUTE, max_future_us=5 * MINUTE)
N_EVENTS = 1_200
PER_SECOND = 5
BURST = (200, 220)
"""Seconds since the start with 30% outliers."""


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """The lead of each event's clock in microseconds, and the event after which a record batch has 100 records."""

    lead_us: np.ndarray
    large_batch_from: int = N_EVENTS


def one_record_ahead(_n: int) -> Clocks:
    lead = np.zeros(N_EVENTS, np.int64)
    lead[300] = 50 * MINUTE
    return Clocks(lead_us=lead)


def one_batch_ahead(partitions: int) -> Clocks:
    lead = np.zeros(N_EVENTS, np.int64)
    lead[300 : 300 + 100 * partitions : partitions] = 50 * MINUTE
    return Clocks(lead_us=lead, large_batch_from=300)


def one_device_in_ten_ahead(_n: int) -> Clocks:
    return Clocks(lead_us=np.where(np.arange(N_EVENTS) % 10 == 3, 60 * MINUTE, 0))


CLOCKS = {"one record": one_record_ahead, "one batch": one_batch_ahead, "one in ten": one_device_in_ten_ahead}


def make_sources(n: int, clocks: Clocks, pause_us: int = 0) -> list[DecodedBatch]:
    """Return the log of each of n partitions; events take turns, and record batches have one to five records."""
    rng = np.random.default_rng(7)
    number = np.arange(N_EVENTS)
    features = rng.normal(size=(N_EVENTS, 2)).astype(np.float32)
    second = number // PER_SECOND
    burst = (second >= BURST[0]) & (second < BURST[1]) & (rng.random(N_EVENTS) < 0.3)
    features[burst] *= 9
    times = T0 + number * (SECOND // PER_SECOND) + clocks.lead_us + np.where(number >= 800, pause_us, 0)
    sources = []
    for of in range(n):
        own = number[of::n]
        begins = np.unique(np.concatenate([[0], np.cumsum(rng.integers(1, 6, len(own)))]))
        first = int(np.searchsorted(own, clocks.large_batch_from))
        begins = np.append(begins[(begins <= first) | (begins >= first + 100)], first if first < len(own) else 0)
        begins = np.unique(begins)
        offsets = np.arange(len(own), dtype=np.int64)
        sources.append(
            DecodedBatch(
                partition=partition(of),
                begin=0,
                end=len(own),
                cursors=None,
                events=Events(
                    offsets=offsets,
                    times_us=times[own],
                    features=features[own],
                    batch_offsets=begins[np.searchsorted(begins, offsets, side="right") - 1],
                    has_append_time=np.zeros(len(own), np.bool_),
                ),
                dead_letters=DeadLetters.empty(),
            )
        )
    return sources


def run(db: Database, sources: list[DecodedBatch], n: int) -> None:
    scene = SimulationSettings(
        rules=RULES, refresh=timedelta(minutes=1), look_back=timedelta(minutes=30), sources=sources
    )
    run_in_turn(db, scene, n)


def spikes(db: Database) -> list[int]:
    """Return the seconds since the start of the windows that opened a spike."""
    rows = fetch_rows(db, "SELECT window_start_us FROM incidents WHERE kind = 'spike'")
    return [(int(str(start)) - T0) // SECOND for (start,) in rows]


@pytest.mark.parametrize("reading", ["live", "a backlog"])
@pytest.mark.parametrize("partitions", [1, 4])
@pytest.mark.parametrize("clocks", list(CLOCKS))
def test_a_wrong_clock_makes_no_event_of_the_others_late(
    sqlite_db: Database, clocks: str, partitions: int, reading: str
) -> None:
    wrong = CLOCKS[clocks](partitions)
    run(sqlite_db, make_sources(partitions, wrong), 60 if reading == "live" else 10**9)
    n_wrong = int((wrong.lead_us > 0).sum())
    assert fetch_rows(sqlite_db, "SELECT sum(events), sum(late) FROM windows") == [(N_EVENTS - n_wrong, 0)]
    assert fetch_rows(sqlite_db, "SELECT reason, sum(count) FROM dead_letters GROUP BY reason") == [
        ("future_time", n_wrong)
    ]
    assert [start for start in spikes(sqlite_db) if BURST[0] <= start < BURST[1]]


@pytest.mark.parametrize("partitions", [1, 4])
def test_a_stream_that_was_down_for_a_day_goes_on(sqlite_db: Database, partitions: int) -> None:
    even = Clocks(lead_us=np.zeros(N_EVENTS, np.int64))
    run(sqlite_db, make_sources(partitions, even, pause_us=1_440 * MINUTE), 200)
    assert fetch_rows(sqlite_db, "SELECT sum(events), sum(late) FROM windows") == [(N_EVENTS, 0)]
    assert count_rows(sqlite_db, "dead_letters") == 0
    assert [start for start in spikes(sqlite_db) if BURST[0] <= start - 86_400 < BURST[1]]
