"""Read-only access to the stored history, in batches of columns and short transactions.

For example `History("sqlite:///outrider.db").scores("payments", since="1h", outliers=True).to_frame()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self, TypedDict, Unpack

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from config.errors import ConfigError, OutriderError
from storage.database.engine import Database
from storage.database.tables import positions, streams
from storage.queries import history_views
from storage.queries.history_views import Columns, HistoryView, to_columns
from storage.queries.score_reader import ScoreReader
from storage.queries.times import TimeBound, resolve_time_bound
from storage.queries.view_readers import ViewReader

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_PLOT_SINCE = "24h"
_DAY = np.timedelta64(1, "D")


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnBatches:
    """Rows as batches of columns; every iteration reads the database again.

    A batch is a dict of numpy arrays (numbers, booleans, times as datetime64 in UTC) and lists (texts, parsed
    JSON, bytes, and integers that may be missing).
    """

    read: Callable[[], Iterator[Columns]]
    view: HistoryView

    def __iter__(self) -> Iterator[Columns]:
        return self.read()

    def to_frame(self) -> pd.DataFrame:
        """Return all rows as one pandas DataFrame; times have the time zone UTC."""
        import pandas as pd  # noqa: PLC0415  (an extra; reading columns does not need pandas)

        frames = [pd.DataFrame(batch) for batch in self] or [pd.DataFrame(to_columns(self.view, []))]
        frame = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
        for name, kind in self.view.columns.items():
            if kind == "time":
                frame[name] = frame[name].dt.tz_localize("UTC")
        return frame


class QueryBounds(TypedDict, total=False):
    """Bounds of a query: `since` (inclusive), `until` (exclusive), and `limit` for the newest rows."""

    since: TimeBound | None
    until: TimeBound | None
    limit: int | None


class History:
    """The stored history of all streams, read-only.

    Every query method takes `since` (inclusive), `until` (exclusive) and `limit` (the newest `limit` rows, oldest
    first). It raises ConfigError if the stream does not exist. A bound that is neither a time nor a duration raises
    ConfigError when the rows are read.

    Raises:
        ConfigError: The database does not exist or the URL is invalid.
        SchemaMismatch: Another version of Outrider wrote the database.
        StorageUnavailable: The server cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self._db = Database(url, read_only=True)
        try:
            self._db.check_schema()
        except OutriderError:
            self._db.close()
            raise

    def scores(
        self,
        stream: str,
        *,
        since: TimeBound | None = None,
        until: TimeBound | None = None,
        outliers: bool = False,
        limit: int | None = None,
    ) -> ColumnBatches:
        """Return every event with its energy and threshold, by source and offset; the bounds apply to the event time.

        Outliers include their features. With `limit` the rows are in the order of event time.

        Raises:
            ConfigError: The stream does not exist.
        """
        view = history_views.OUTLIERS if outliers else history_views.SCORES

        def read() -> Iterator[Columns]:
            with self._db.read() as connection:
                stream_id = self._find_stream_id(connection, stream)
                latest_us = connection.scalar(
                    sa.select(sa.func.max(positions.c.last_event_us)).where(positions.c.stream_id == stream_id)
                )
            reader = ScoreReader(
                db=self._db,
                view=view,
                stream_id=stream_id,
                since_us=resolve_time_bound(since, latest_us),
                until_us=resolve_time_bound(until, latest_us),
            )
            return reader.read_all() if limit is None else reader.read_newest(limit)

        self._check_stream_exists(stream)
        return ColumnBatches(read=read, view=view)

    def windows(self, stream: str | None = None, **bounds: Unpack[QueryBounds]) -> ColumnBatches:
        """Return the judged windows by window start; the bounds apply to the window start."""
        return self._query_view(history_views.WINDOWS, stream, **bounds)

    def thresholds(self, stream: str | None = None, **bounds: Unpack[QueryBounds]) -> ColumnBatches:
        """Return the thresholds by the start of their validity; the bounds apply to it."""
        return self._query_view(history_views.THRESHOLDS, stream, **bounds)

    def incidents(self, stream: str | None = None, **bounds: Unpack[QueryBounds]) -> ColumnBatches:
        """Return the incidents by opening time; the bounds apply to the opening time."""
        return self._query_view(history_views.INCIDENTS, stream, **bounds)

    def verdicts(self, stream: str | None = None, **bounds: Unpack[QueryBounds]) -> ColumnBatches:
        """Return the verbs of people on incidents by their time; the bounds apply to it."""
        return self._query_view(history_views.VERDICTS, stream, **bounds)

    def mutes(self, stream: str | None = None, **bounds: Unpack[QueryBounds]) -> ColumnBatches:
        """Return the mutes by their start, with a stream those that name it; the bounds apply to the start."""
        return self._query_view(history_views.MUTES, stream, **bounds)

    def notifications(self, stream: str | None = None, **bounds: Unpack[QueryBounds]) -> ColumnBatches:
        """Return the notifications by creation time; the bounds apply to the creation time."""
        return self._query_view(history_views.NOTIFICATIONS, stream, **bounds)

    def dead_letters(self, stream: str | None = None, **bounds: Unpack[QueryBounds]) -> ColumnBatches:
        """Return the dead letters by recording time; the bounds apply to the recording time."""
        return self._query_view(history_views.DEAD_LETTERS, stream, **bounds)

    def drift(self, stream: str | None = None, **bounds: Unpack[QueryBounds]) -> ColumnBatches:
        """Return the drift verdicts by window end; the bounds apply to the window end."""
        return self._query_view(history_views.DRIFT, stream, **bounds)

    def calibration(self, stream: str | None = None, **bounds: Unpack[QueryBounds]) -> ColumnBatches:
        """Return the false-alarm budget and the realised rate at each tick; the bounds apply to the tick."""
        return self._query_view(history_views.CALIBRATION, stream, **bounds)

    def gaps(self, stream: str | None = None, **bounds: Unpack[QueryBounds]) -> ColumnBatches:
        """Return the gaps (offset ranges that could not be read) by recording time; the bounds apply to it."""
        return self._query_view(history_views.GAPS, stream, **bounds)

    def plot(self, stream: str, **bounds: Unpack[QueryBounds]) -> Figure:
        """Return a matplotlib figure of the windows: energies against the threshold, outliers against those expected.

        In a notebook, the last expression of a cell shows it: `history.plot("payments", since="24h")`. `since` is by
        default a day before the latest window. Needs the extra `plot`.

        Raises:
            ConfigError: matplotlib is not installed, the stream does not exist, or it has no windows in this time.
        """
        from storage.history_plot import plot_windows  # noqa: PLC0415 - matplotlib is an extra

        wanted: QueryBounds = {"since": _PLOT_SINCE}
        wanted.update(bounds)
        windows = self._read_all(self.windows(stream, **wanted))
        times = windows["window_start"]
        # The threshold before the first window is in force in it.
        since = None if not len(times) else f"{np.datetime_as_string(np.asarray(times)[0] - _DAY)}Z"
        thresholds = self._read_all(self.thresholds(stream, since=since, until=bounds.get("until")))
        return plot_windows(stream, windows, thresholds, self._read_all(self.incidents(stream)))

    @staticmethod
    def _read_all(batches: ColumnBatches) -> Columns:
        """Return all rows as one batch of columns."""
        found = list(batches) or [to_columns(batches.view, [])]
        return {
            name: np.concatenate([batch[name] for batch in found])
            if isinstance(found[0][name], np.ndarray)
            else [value for batch in found for value in batch[name]]
            for name in found[0]
        }

    def streams(self) -> list[str]:
        """Return the names of the stored streams, sorted."""
        with self._db.read() as connection:
            return list(connection.scalars(sa.select(streams.c.name).order_by(streams.c.name)))

    def close(self) -> None:
        """Close the database connections."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _query_view(self, view: HistoryView, stream: str | None, **bounds: Unpack[QueryBounds]) -> ColumnBatches:
        if stream is not None:
            self._check_stream_exists(stream)
        limit = bounds.get("limit")

        def read() -> Iterator[Columns]:
            reader = ViewReader(db=self._db, view=view, stream=stream, since_us=None, until_us=None)
            latest_us = reader.latest_us()
            bounded = replace(
                reader,
                since_us=resolve_time_bound(bounds.get("since"), latest_us),
                until_us=resolve_time_bound(bounds.get("until"), latest_us),
            )
            return bounded.read_all() if limit is None else bounded.read_newest(limit)

        return ColumnBatches(read=read, view=view)

    def _check_stream_exists(self, stream: str) -> None:
        with self._db.read() as connection:
            self._find_stream_id(connection, stream)

    def _find_stream_id(self, connection: Connection, stream: str) -> int:
        stream_id = connection.scalar(sa.select(streams.c.id).where(streams.c.name == stream))
        if stream_id is None:
            known = ", ".join(connection.scalars(sa.select(streams.c.name).order_by(streams.c.name))) or "none"
            raise ConfigError(f"there is no stream {stream!r} in {self._db.address}; its streams are: {known}")
        return int(stream_id)
