"""Features that are derived from earlier events of a key: equal whatever the commits, and after every take-over."""

import json
from itertools import groupby

import numpy as np
import pytest

from monitor.models.shadow_parts import merge_shadow_parts
from monitor.pipeline import key_states
from monitor.statistics.key_states import KeyStates
from storage.control.shadows import NewShadow, ShadowStore
from storage.database.engine import Database
from tests.integration.control.worker_bench import (
    MINUTE,
    SECOND,
    T0,
    WorkerBench,
    fetch_rows,
    fit_deriving_model,
    open_stream,
    raw_batch,
    seal,
)

_EVENTS = 120


def _records() -> list[bytes]:
    rng = np.random.default_rng(3)
    keys = rng.integers(0, 9, _EVENTS)
    lateness_us = np.where(rng.random(_EVENTS) < 0.1, 3600 * SECOND, 0)
    times_us = T0 + np.arange(_EVENTS) * SECOND - lateness_us
    return [
        json.dumps({"x": x, "y": y, "k": f"key-{key}", "ts": time_us / SECOND}).encode()
        for (x, y), key, time_us in zip(rng.normal(size=(_EVENTS, 2)).tolist(), keys, times_us, strict=True)
    ]


def _run(db: Database, name: str, ends: list[int], *, in_shadow: bool = False) -> list[tuple[object, ...]]:
    """Score the records in pieces, each by a worker that takes over; return the stored rows."""
    model = fit_deriving_model()
    stream_id, records = open_stream(db, name=name, model=None if in_shadow else model), _records()
    if in_shadow:  # it scores from the first window after all that may be stored
        seal(db, stream_id, T0 - 20 * MINUTE)
        shadow = NewShadow(percentile=99.0, threshold=float(model.reference[-4]), due_after_us=None)
        ShadowStore(db).start(stream_id, model.new_model, shadow)
    seal(db, stream_id, T0)
    for begin, end in zip([0, *ends], [*ends, _EVENTS], strict=True):
        bench = WorkerBench(db, stream_id)
        bench.feed(bench.claim(), raw_batch(records[begin:end], begin))
        bench.finish()
        assert bench.position().next_offset == end
    if in_shadow:
        return _merge_shadow_parts(db, stream_id)
    return fetch_rows(
        db, f"SELECT source_offset, key, energy, is_outlier FROM score_history WHERE stream = '{name}' ORDER BY 1"
    )


def test_energies_do_not_depend_on_commits_and_take_overs(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_states, "SNAPSHOT_EVERY", 3)
    undisturbed = _run(db, "once", [])
    assert len(undisturbed) == _EVENTS
    assert len({row[2] for row in undisturbed}) > 100, "the energies depend on the events"
    assert _run(db, "often", [1, 2, 40, 41, 75, 90, 119]) == undisturbed


def _merge_shadow_parts(db: Database, stream_id: int) -> list[tuple[object, ...]]:
    rows = fetch_rows(
        db, f"SELECT window_start_us, payload FROM shadow_parts WHERE stream_id = {stream_id} ORDER BY window_start_us"
    )
    by_window = groupby(rows, key=lambda row: row[0])
    return [(start, merge_shadow_parts([bytes(row[1]) for row in group])) for start, group in by_window]


def test_a_shadow_model_derives_features_from_the_same_states(db: Database) -> None:
    undisturbed = _run(db, "once", [], in_shadow=True)
    assert undisturbed
    assert _run(db, "often", [1, 40, 41, 90], in_shadow=True) == undisturbed
    assert len(fetch_rows(db, "SELECT DISTINCT energy FROM score_history WHERE stream = 'once'")) > 100


def test_the_least_recent_keys_are_replaced_at_the_same_events(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    unbounded = _run(db, "unbounded", [])
    monkeypatch.setattr(KeyStates.from_rows.__func__, "__defaults__", (4,))
    bounded = _run(db, "bounded", [])
    assert bounded != unbounded
    assert _run(db, "often", [7, 8, 50, 100]) == bounded
