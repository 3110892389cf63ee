"""Export of scores to Parquet: one file per hour of event time, written once all windows of the hour are sealed.

A file never changes. Late events of an hour that was exported before go into a further file of that hour. The metadata
of a file name the positions of the sources up to which it, and the earlier files of the hour, have all scores. So an
export that is killed, or repeated, writes each score exactly once.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from config.errors import ConfigError
from config.time_format import HOUR_US
from storage.history import History
from storage.queries.export_facts import ExportFacts, SourceKey
from storage.queries.history_views import Columns

POSITIONS_KEY = b"outrider.positions"
_FILE_NAME = re.compile(r"^(?P<hour>[0-9]{2})(\.(?P<part>[0-9]+))?\.parquet$")
_TEMPORARY_SUFFIX = ".partial"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedHour:
    """The files of one hour: their number, and the positions up to which they have all scores of the hour."""

    n_files: int
    positions: Mapping[SourceKey, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What an export wrote: files, rows, and the end of the exported hours; None before the first whole hour."""

    files: int
    rows: int
    until_us: int | None


def export_scores(
    history: History, stream: str, facts: ExportFacts, folder: Path, *, since_us: int | None = None
) -> ExportResult:
    """Write the scores of all sealed hours that are not in the folder yet.

    Args:
        history: The history that the scores are read from.
        stream: The stream.
        facts: The state of the stream; scores that were stored after it are left to the next export.
        folder: The folder; the files of the stream lie in `FOLDER/STREAM/YYYY-MM-DD/HH.parquet`.
        since_us: Event time from which hours are exported; None: all that are stored.

    Raises:
        ConfigError: pyarrow is not installed, or another export writes to the folder.
    """
    _import_parquet()
    until_us = None if facts.sealed_until_us is None else facts.sealed_until_us // HOUR_US * HOUR_US
    own_folder = folder / stream
    own_folder.mkdir(parents=True, exist_ok=True)
    files = rows = 0
    with _only_export(own_folder):
        for hour_us in find_due_hours(facts, since_us, until_us, lambda hour: read_exported(own_folder, hour)):
            written = _export_hour(history, stream, facts, own_folder, hour_us)
            files, rows = files + bool(written), rows + written
    return ExportResult(files=files, rows=rows, until_us=until_us)


def find_due_hours(
    facts: ExportFacts, since_us: int | None, until_us: int | None, exported: Callable[[int], ExportedHour]
) -> Iterator[int]:
    """Yield the starts of the hours that have no file, or late events that their files do not have.

    `exported` returns the `ExportedHour` of an hour.
    """
    if facts.first_us is None or until_us is None:
        return
    first_us = max(facts.first_us, 0 if since_us is None else since_us) // HOUR_US * HOUR_US
    for hour_us in range(first_us, until_us, HOUR_US):
        found = exported(hour_us)
        if not found.n_files or _has_new_late_events(facts, found, hour_us):
            yield hour_us


def _has_new_late_events(facts: ExportFacts, found: ExportedHour, hour_us: int) -> bool:
    return any(
        each.last_offset >= found.positions.get(each.source, 0)
        and each.min_late_us < hour_us + HOUR_US
        and each.max_late_us >= hour_us
        for each in facts.late_ranges
    )


def read_exported(folder: Path, hour_us: int) -> ExportedHour:
    """Return the files of an hour in the folder of a stream."""
    parquet = _import_parquet()
    day, hour = _day_and_hour(hour_us)
    found: dict[SourceKey, int] = {}
    n_files = 0
    for path in sorted((folder / day).glob(f"{hour}*.parquet")):
        if _FILE_NAME.match(path.name) is None:
            continue
        n_files += 1
        stored = json.loads(parquet.read_metadata(path).metadata[POSITIONS_KEY])
        for topic, partition, incarnation, offset in stored:
            key = (topic, partition, incarnation)
            found[key] = max(found.get(key, 0), offset)
    return ExportedHour(n_files=n_files, positions=found)


def _export_hour(history: History, stream: str, facts: ExportFacts, folder: Path, hour_us: int) -> int:
    """Write the scores of an hour that its files do not have; return their number."""
    done = read_exported(folder, hour_us)
    batches = _new_rows(
        history.scores(stream, since=_to_datetime(hour_us), until=_to_datetime(hour_us + HOUR_US)),
        done.positions,
        facts.positions,
    )
    day, hour = _day_and_hour(hour_us)
    name = f"{hour}.parquet" if not done.n_files else f"{hour}.{done.n_files}.parquet"
    positions = {**done.positions, **facts.positions}
    return _write_file(folder / day / name, batches, positions)


def _new_rows(
    batches: Iterable[Columns], done: Mapping[SourceKey, int], positions: Mapping[SourceKey, int]
) -> Iterator[Columns]:
    """Yield the rows at or after the positions of the existing files and before those of the facts."""
    for batch in batches:
        key = (batch["topic"][0], int(batch["partition"][0]), int(batch["incarnation"][0]))  # one source a batch
        offsets = np.asarray(batch["source_offset"])
        chosen = (offsets >= done.get(key, 0)) & (offsets < positions.get(key, 0))
        if chosen.all():
            yield batch
        elif chosen.any():
            rows = np.flatnonzero(chosen)
            yield {
                name: values[rows] if isinstance(values, np.ndarray) else [values[i] for i in rows]
                for name, values in batch.items()
            }


def _write_file(path: Path, batches: Iterator[Columns], positions: Mapping[SourceKey, int]) -> int:
    """Write batches to a temporary file and rename it when it is complete and on the disk; return the rows."""
    import pyarrow as pa  # noqa: PLC0415 - an extra

    parquet = _import_parquet()
    stored = json.dumps([[*key, offset] for key, offset in sorted(positions.items())])
    schema = _schema(pa).with_metadata({POSITIONS_KEY: stored.encode()})
    rows, writer, partial = 0, None, path.with_name(path.name + _TEMPORARY_SUFFIX)
    for batch in batches:
        if writer is None:
            path.parent.mkdir(exist_ok=True)
            writer = parquet.ParquetWriter(partial, schema, compression="zstd")
        table = _to_table(pa, batch, schema)
        writer.write_table(table)
        rows += len(table)
    if writer is not None:
        writer.close()
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    return rows


def _schema(pa: Any) -> Any:
    time = pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            ("stream", pa.string()),
            ("topic", pa.string()),
            ("partition", pa.int32()),
            ("source_offset", pa.int64()),
            ("incarnation", pa.int32()),
            ("event_time", time),
            ("stored_at", time),
            ("key", pa.string()),
            ("event_id", pa.string()),
            ("energy", pa.float32()),
            ("threshold", pa.float64()),
            ("is_outlier", pa.bool_()),
            ("model_version", pa.int32()),
        ]
    )


def _to_table(pa: Any, batch: Columns, schema: Any) -> Any:
    columns = [pa.array(batch[field.name]).cast(field.type, safe=False) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _sync(path: Path) -> None:
    """Write a file or the entries of a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _only_export(folder: Path) -> Iterator[None]:
    """Hold the lock of a stream's folder, and remove what an export that was killed has left."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"another export writes to {folder}; wait for its end") from error
        for partial in folder.glob(f"*/*{_TEMPORARY_SUFFIX}"):
            partial.unlink()
        yield


def _day_and_hour(hour_us: int) -> tuple[str, str]:
    when = _to_datetime(hour_us)
    return when.strftime("%Y-%m-%d"), when.strftime("%H")


def _to_datetime(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us // 1_000_000, UTC)


def _import_parquet() -> Any:
    try:
        from pyarrow import parquet  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError("an export needs pyarrow; install it with: pip install 'outrider[parquet]'") from error
    return parquet
