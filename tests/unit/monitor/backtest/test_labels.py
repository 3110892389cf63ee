"""Label files with labelled events or intervals."""

from pathlib import Path

import numpy as np
import pytest

from config.errors import ConfigError
from consumers.decoded_batch import Events
from monitor.backtest.labels import Burst, Labels, group_bursts, read_labels

SECOND = 1_000_000


def write_labels(folder: Path, text: str, name: str = "labels.csv") -> Labels:
    path = folder / name
    path.write_text(text)
    return read_labels(path)


def events(*ids: str, first: int = 0) -> Events:
    n = len(ids)
    return Events(
        offsets=np.arange(first, first + n),
        times_us=np.arange(n) * SECOND,
        features=np.zeros((n, 1), np.float32),
        ids=list(ids),
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "id,is_attack,burst\n7,1,2\n8,0,0\n9,1,0\n"),
        ("b.csv", "event_id,label,burst\n7,attack,2\n8,normal,0\n9,probe,\n"),
        ("c.jsonl", '{"id": 7, "label": true, "burst": 2}\n\n{"id": 8, "label": false}\n{"id": "9", "label": 1}\n'),
        ("d.csv", "id,burst\n7,2\n9,0\n"),
    ],
)
def test_labelled_events_are_matched_by_id_with_their_bursts(tmp_path: Path, name: str, text: str) -> None:
    labelled, bursts = write_labels(tmp_path, text, name).label_events(events("7", "8", "9", "10"))
    assert labelled.tolist() == [True, False, True, False]
    assert bursts[labelled].tolist() == [2, 0]


def test_labelled_events_are_matched_by_row(tmp_path: Path) -> None:
    labels = write_labels(tmp_path, "row,label\n5,1\n6,0\n")
    assert labels.label_events(events("a", "b", first=5))[0].tolist() == [True, False]


def test_intervals_are_read_in_every_time_format_and_sorted(tmp_path: Path) -> None:
    labels = write_labels(tmp_path, "start,end\n2026-01-01T00:01:00Z,2026-01-01T00:02:00Z\n1767225600,1767225630.5\n")
    first = 1_767_225_600 * SECOND
    assert labels.intervals == [
        Burst(start_us=first, end_us=first + 30_500_000),
        Burst(start_us=first + 60 * SECOND, end_us=first + 120 * SECOND),
    ]
    assert not labels.of_events


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no labels"),
        ("when,what\n1,2\n", "has the columns when, what"),
        ("start,end\n10,5\n", "interval 1: its end is not after"),
        ("start,end\nyesterday,today\n", "interval 1"),
        ("row,label\nseven,1\n", "'seven' is not a valid row"),
        ("row,label,burst\n7,1,big\n", "'big' is not a valid burst"),
    ],
)
def test_file_without_usable_labels_is_rejected(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write_labels(tmp_path, text)


def test_missing_file_and_lines_that_are_not_objects_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read as labels"):
        read_labels(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="line 2"):
        write_labels(tmp_path, '{"row": 1}\n[2]\n', "labels.jsonl")


def test_labels_by_id_require_event_ids(tmp_path: Path) -> None:
    without = Events(offsets=np.arange(1), times_us=np.zeros(1, np.int64), features=np.zeros((1, 1), np.float32))
    with pytest.raises(ConfigError, match=r"set event\.id"):
        write_labels(tmp_path, "id,label\n7,1\n").label_events(without)


def test_events_without_burst_number_are_grouped_by_time() -> None:
    times = np.array([0, 1, 2, 50, 51, 200]) * SECOND
    numbers = np.array([0, 0, 0, 4, 4, 0])
    found = group_bursts(times, numbers, apart_us=10 * SECOND)
    assert [(burst.start_us // SECOND, burst.events) for burst in found] == [(0, 3), (50, 2), (200, 1)]


@pytest.mark.parametrize("row", ["05/01/2024,2024-05-02", "2024-05-01,", "2024-05-01,01.05.2024"])
def test_interval_with_a_time_that_cannot_be_read_is_rejected(tmp_path: Path, row: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"start,end\n2024-04-01,2024-04-02\n{row}\n")
    with pytest.raises(ConfigError, match=r"interval 2: its (start|end) .* cannot be read as a time"):
        read_labels(path)
