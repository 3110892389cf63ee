"""`outrider fit` on files and on streams of files: the events that it chooses, and its errors."""

import json
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from monitor.statistics.event_sample import EventSample, encode_sample
from storage.control.models import ModelStore
from storage.control.records import WindowRow, WindowSample
from storage.control.samples import insert_sample
from storage.database.engine import Database
from storage.database.tables import incidents
from storage.ledger.ledger import Ledger
from tests.unit.monitor.cli.conftest import OutriderRunner

T0_S = 1_767_225_600


def write_events(path: Path, n: int, *, name: str = "x") -> Path:
    """Write one event a second."""
    x = np.random.default_rng(0).normal(size=(n, 2)).round(4).tolist()
    lines = [json.dumps({name: a, "y": b, "ts": T0_S + i}) for i, (a, b) in enumerate(x)]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def own_config(tmp_path: Path, url: str) -> Path:
    path = tmp_path / "fit.yaml"
    path.write_text(
        f"""
database: {{url: '{url}'}}
streams:
  readings:
    source: {{type: file, path: '{tmp_path / "events.jsonl"}'}}
    event: {{time: {{field: ts}}, features: [x, y]}}
    model: {{n_components: 1, warm_up: 300}}
  invented:
    source: {{type: synthetic}}
"""
    )
    return path


def fitted_events(db: Database, stream: str = "readings") -> list[int]:
    stream_id = Ledger(db).find_stream(stream)
    assert stream_id is not None
    return [model.summary["events"] for model in ModelStore(db).list(stream_id)]


def test_first_and_newest_events_of_the_file_of_a_stream(
    outrider: OutriderRunner, db: Database, own_config: Path, tmp_path: Path
) -> None:
    write_events(tmp_path / "events.jsonl", 1_000)
    first = outrider("fit", "readings", config=own_config)
    assert first.code == 0, first.err
    assert "reading its first 300 events" in first.err
    assert "(offsets 0 to 1,000)" in first.err
    newest = outrider("fit", "readings", config=own_config)
    assert newest.code == 0, newest.err
    assert "reading the newest 300 retained events" in newest.err
    assert outrider("fit", "readings", "--last", "120", config=own_config).code == 0
    assert outrider("fit", "readings", "--since", "99s", config=own_config).code == 0
    assert fitted_events(db) == [300, 300, 120, 100]


def store_samples(db: Database, n_windows: int, *, spike: int | None = None) -> None:
    """Store samples of 10 of 20 events for windows of a minute, and an incident of one of the windows."""
    stream_id = Ledger(db).find_stream("readings")
    assert stream_id is not None
    (model,) = ModelStore(db).list(stream_id)
    rng = np.random.default_rng(2)
    with db.write() as connection:
        for window in range(n_windows):
            start_us = T0_S * 1_000_000 + window * 60_000_000
            sample = EventSample(
                capacity=10,
                hashes=np.arange(10, dtype=np.uint64),
                times_us=start_us + np.arange(10),
                features=rng.normal(size=(10, 2)),
            )
            row = WindowRow(
                window_start_us=start_us,
                window_end_us=start_us + 60_000_000,
                threshold_id=None,
                events=20,
                outliers=0,
                late=0,
                dead=0,
                judged=True,
            )
            stored = WindowSample(model_id=model.id, payload=encode_sample(sample))
            insert_sample(connection, stream_id, row, stored)
            if window == spike:
                connection.execute(
                    sa.insert(incidents).values(
                        stream_id=stream_id,
                        kind="spike",
                        severity="warning",
                        status="resolved",
                        window_start_us=start_us,
                        opened_at_us=start_us,
                        resolved_at_us=start_us + 180_000_000,
                        last_told_us=start_us,
                        clean_windows=0,
                        windows_fired=1,
                        summary="a spike",
                    )
                )


def test_samples_of_clean_windows_are_fitted_without_the_source(
    outrider: OutriderRunner, db: Database, own_config: Path, tmp_path: Path
) -> None:
    events = write_events(tmp_path / "events.jsonl", 1_000)
    assert outrider("fit", "readings", config=own_config).code == 0
    store_samples(db, 60, spike=20)
    events.unlink()
    done = outrider("fit", "readings", config=own_config)
    assert done.code == 0, done.err
    assert "fitting on 570 sampled events of 57 windows over 1 hour (1,140 events)" in done.err
    assert "3 windows with an incident or other features are left out" in done.err
    assert outrider("fit", "readings", "--last", "120", config=own_config).code == 0
    assert outrider("fit", "readings", "--since", "45m", config=own_config).code == 0
    assert fitted_events(db) == [300, 570, 120, 420]


def test_few_samples_leave_the_choice_to_the_source(
    outrider: OutriderRunner, db: Database, own_config: Path, tmp_path: Path
) -> None:
    write_events(tmp_path / "events.jsonl", 1_000)
    assert outrider("fit", "readings", config=own_config).code == 0
    store_samples(db, 20)
    done = outrider("fit", "readings", config=own_config)
    assert done.code == 0, done.err
    assert "the samples of its windows hold 200 events, fewer than 400" in done.err
    assert "reading the newest 300 retained events" in done.err


def test_newest_events_of_another_file(
    outrider: OutriderRunner, db: Database, own_config: Path, tmp_path: Path
) -> None:
    events = write_events(tmp_path / "other.jsonl", 1_000)
    whole = outrider("fit", "readings", events, config=own_config)
    assert whole.code == 0
    assert f"reading all events of {events}, up to its end" in whole.err
    assert outrider("fit", "readings", events, "--last", "80", config=own_config).code == 0
    assert outrider("fit", "readings", events, "--since", "149s", config=own_config).code == 0
    assert fitted_events(db) == [1_000, 80, 150]


def test_a_file_with_fewer_events_than_the_warm_up_is_fitted_on_all(
    outrider: OutriderRunner, db: Database, own_config: Path, tmp_path: Path
) -> None:
    write_events(tmp_path / "events.jsonl", 90)
    result = outrider("fit", "readings", config=own_config)
    assert result.code == 0, result.err
    assert "the log has 90 usable events up to its end, not 300" in result.err
    assert fitted_events(db) == [90]


def test_too_few_events_exit_with_2_and_name_the_rejected_records(
    outrider: OutriderRunner, own_config: Path, tmp_path: Path
) -> None:
    write_events(tmp_path / "events.jsonl", 90, name="X")
    for arguments in ((), ("--last", "100"), ("--since", "1h")):
        result = outrider("fit", "readings", *arguments, config=own_config)
        assert result.code == 2
        assert "there are 0 usable events (90 records were rejected: missing_feature 90 (x: absent;" in result.err
        assert "the field nearest to 'x' is 'X'" in result.err


def test_rejected_records_are_listed_below_the_number_of_events(
    outrider: OutriderRunner, own_config: Path, tmp_path: Path
) -> None:
    path = write_events(tmp_path / "events.jsonl", 90)
    path.write_text(path.read_text() + "{\n" * 3)
    result = outrider("fit", "readings", config=own_config)
    assert "events      90 (3 records rejected)" in result.out
    assert "  rejected    not_json 3 (" in result.out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("invented", "--last", "5"), "--last and --since require a topic or a file; a synthetic stream retains no"),
        (("readings", "-", "--since", "1d"), "standard input has none"),
        (("readings", "--since", "yesterday"), "--since"),
        (("readings", "--last", "0"), "--last"),
    ],
)
def test_options_that_do_not_fit_the_source_exit_with_2(
    outrider: OutriderRunner, own_config: Path, arguments: tuple[str, ...], error: str
) -> None:
    result = outrider("fit", *arguments, config=own_config)
    assert result.code == 2
    assert error in result.err
