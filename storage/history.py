"""Storage room: what people ask; read-only, in batches of columns, and never one long transaction.

For example `History("sqlite:///outrider.db").scores("payments", since="1h", outliers=True).to_frame()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self, TypedDict, Unpack

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from config.errors import ConfigError, OutriderError
from storage.database.engine import Database
from storage.database.tables import positions, streams
from storage.queries import history_views as listings
from storage.queries.history_views import Columns, HistoryView, to_columns
from storage.queries.times import TimeBound, resolve_time_bound
from storage.queries.view_readers import ScoreReader, ViewReader

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnBatches:
    """Rows as batches of columns, read anew whenever they are iterated.

    A batch is a dict of numpy arrays (numbers, booleans, times as datetime64 in UTC) and lists (texts, parsed
    JSON, bytes, and whole numbers that may be missing).
    """

    read: Callable[[], Iterator[Columns]]
    view: HistoryView

    def __iter__(self) -> Iterator[Columns]:
        return self.read()

    def to_frame(self) -> pd.DataFrame:
        """Return all rows as one pandas frame; times carry the zone UTC."""
        import pandas as pd  # noqa: PLC0415  (an extra: reading columns needs no pandas)

        frames = [pd.DataFrame(batch) for batch in self] or [pd.DataFrame(to_columns(self.view, []))]
        frame = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
        for name, kind in self.view.columns.items():
            if kind == "time":
                frame[name] = frame[name].dt.tz_localize("UTC")
        return frame


class QueryBounds(TypedDict, total=False):
    """Which rows of a listing: `since` (inclusive), `until` (exclusive), the newest `limit`."""

    since: TimeBound | None
    until: TimeBound | None
    limit: int | None


class History:
    """The stored history of all streams, for reading only.

    Every method takes `since` (inclusive), `until` (exclusive) and `limit` (the newest so many, oldest
    first).

    Raises:
        ConfigError: There is no such database or it cannot be named so.
        SchemaMismatch: Another version of Outrider wrote it.
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
        """Return every event with its energy and limit, by source and offset; times bound the event time.

        Outliers come with their features. With `limit` the rows come in the order of event time.

        Raises:
            ConfigError: There is no such stream, or a time cannot be read.
        """
        listing = listings.OUTLIERS if outliers else listings.SCORES

        def read() -> Iterator[Columns]:
            with self._db.read() as connection:
                stream_id = self._find_stream_id(connection, stream)
                latest_us = connection.scalar(
                    sa.select(sa.func.max(positions.c.last_event_us)).where(positions.c.stream_id == stream_id)
                )
            log = ScoreReader(
                db=self._db,
                view=listing,
                stream_id=stream_id,
                since_us=resolve_time_bound(since, latest_us),
                until_us=resolve_time_bound(until, latest_us),
            )
            return log.read_all() if limit is None else log.read_newest(limit)

        self._check_stream_exists(stream)
        return ColumnBatches(read=read, view=listing)

    def windows(self, stream: str | None = None, **bounds: Unpack[QueryBounds]) -> ColumnBatches:
        """Return the judged windows by their start, which the times bound."""
        return self._query_view(listings.WINDOWS, stream, **bounds)

    def thresholds(self, stream: str | None = None, **bounds: Unpack[QueryBounds]) -> ColumnBatches:
        """Return the limits in the order in which they became valid; the times bound that."""
        return self._query_view(listings.THRESHOLDS, stream, **bounds)

    def incidents(self, stream: str | None = None, **bounds: Unpack[QueryBounds]) -> ColumnBatches:
        """Return the incidents by the time at which they opened, which the times bound."""
        return self._query_view(listings.INCIDENTS, stream, **bounds)

    def notifications(self, stream: str | None = None, **bounds: Unpack[QueryBounds]) -> ColumnBatches:
        """Return the notifications by the time at which they were made, which the times bound."""
        return self._query_view(listings.NOTIFICATIONS, stream, **bounds)

    def dead_letters(self, stream: str | None = None, **bounds: Unpack[QueryBounds]) -> ColumnBatches:
        """Return what could not be used, by the time of recording, which the times bound."""
        return self._query_view(listings.DEAD_LETTERS, stream, **bounds)

    def drift(self, stream: str | None = None, **bounds: Unpack[QueryBounds]) -> ColumnBatches:
        """Return the verdicts on drift by the end of their windows, which the times bound."""
        return self._query_view(listings.DRIFT, stream, **bounds)

    def calibration(self, stream: str | None = None, **bounds: Unpack[QueryBounds]) -> ColumnBatches:
        """Return promised against realised alarms over time."""
        return self._query_view(listings.CALIBRATION, stream, **bounds)

    def gaps(self, stream: str | None = None, **bounds: Unpack[QueryBounds]) -> ColumnBatches:
        """Return the ranges that could not be read, by the time of recording, which the times bound."""
        return self._query_view(listings.GAPS, stream, **bounds)

    def streams(self) -> list[str]:
        """Return the names of the stored streams."""
        with self._db.read() as connection:
            return list(connection.scalars(sa.select(streams.c.name).order_by(streams.c.name)))

    def close(self) -> None:
        """Close the connections."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _query_view(self, listing: HistoryView, stream: str | None, **bounds: Unpack[QueryBounds]) -> ColumnBatches:
        if stream is not None:
            self._check_stream_exists(stream)
        limit = bounds.get("limit")

        def read() -> Iterator[Columns]:
            view = ViewReader(db=self._db, view=listing, stream=stream, since_us=None, until_us=None)
            latest_us = view.latest_us()
            bounded = replace(
                view,
                since_us=resolve_time_bound(bounds.get("since"), latest_us),
                until_us=resolve_time_bound(bounds.get("until"), latest_us),
            )
            return bounded.read_all() if limit is None else bounded.read_newest(limit)

        return ColumnBatches(read=read, view=listing)

    def _check_stream_exists(self, stream: str) -> None:
        with self._db.read() as connection:
            self._find_stream_id(connection, stream)

    def _find_stream_id(self, connection: Connection, stream: str) -> int:
        found = connection.scalar(sa.select(streams.c.id).where(streams.c.name == stream))
        if found is None:
            known = ", ".join(connection.scalars(sa.select(streams.c.name).order_by(streams.c.name))) or "none"
            raise ConfigError(f"there is no stream {stream!r} in {self._db.address}; it holds: {known}")
        return int(found)
