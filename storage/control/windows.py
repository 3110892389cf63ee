"""Transactions that seal a stream and store the judgements of windows.

The seal reads its facts under lock, passes them to a pure decision function and writes the result. A judgement is
decided outside of a transaction and stored if its facts still hold. Each step is idempotent by a unique key, so a
second holder of the lease does no harm.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any

import sqlalchemy as sa

from storage.control.habitual_keys import write_habitual_keys
from storage.control.incidents import open_incidents, write_incident
from storage.control.records import (
    Incident,
    Judgement,
    OpenWindow,
    SealFacts,
    SourceFacts,
    WindowFacts,
    WindowRow,
)
from storage.control.rollups import WindowChange, add_to_rollups
from storage.control.samples import insert_sample
from storage.control.window_facts import (
    FIRST_UNJUDGED_END,
    LAST_JUDGED_END,
    STREAM_ID,
    is_unjudged_part,
    is_waiting_part,
    read_judge_state,
    read_last_judged_end,
    read_unassigned_gaps,
    read_window_facts,
)
from storage.database.engine import Database
from storage.database.locks import lock_stream
from storage.database.tables import (
    FOREVER_US,
    gaps,
    positions,
    streams,
    window_parts,
    windows,
)

# The statements are built once: building one takes as long as running it, and the control plane runs them per window.
_SEALED_UNTIL = sa.select(streams.c.sealed_until_us).where(streams.c.id == STREAM_ID).scalar_subquery()

# In the order in which transactions lock the positions.
_POSITIONS = (
    sa.select(positions.c.watermark_us, positions.c.idle_until_us, positions.c.idle_seen_us)
    .where(positions.c.stream_id == STREAM_ID, positions.c.active)
    .order_by(positions.c.source_id)
)
_LOCK_POSITIONS = _POSITIONS.with_for_update()
_DUE_WINDOWS = (
    sa.select(window_parts.c.window_start_us)
    .where(window_parts.c.stream_id == STREAM_ID, window_parts.c.window_end_us <= _SEALED_UNTIL)
    .distinct()
    .order_by(window_parts.c.window_start_us)
    .limit(sa.bindparam("row_limit", type_=sa.Integer))
)
_FIRST_OPEN_WINDOW = (
    sa.select(
        window_parts.c.window_start_us,
        window_parts.c.threshold_id,
        sa.func.sum(window_parts.c.events).label("events"),
        sa.func.sum(window_parts.c.outliers).label("outliers"),
    )
    .where(
        window_parts.c.stream_id == STREAM_ID,
        # The index is on the window's end; this condition lets the query use it.
        window_parts.c.window_end_us > _SEALED_UNTIL,
        window_parts.c.window_start_us == _SEALED_UNTIL,
        window_parts.c.events > 0,
    )
    .group_by(window_parts.c.window_start_us, window_parts.c.threshold_id)
)
_PART_IDS = sa.select(window_parts.c.id).where(
    window_parts.c.stream_id == STREAM_ID,
    window_parts.c.window_start_us == sa.bindparam("start_us", type_=sa.BigInteger),
)

_OUTLIER_PART_IDS = _PART_IDS.where(window_parts.c.outliers > 0)
_MAX_READ_PARTS = 500
"""Parts of an open window that one step reads; the rest is read by the next step."""


def _select_stream_facts(clock: sa.ColumnElement[int]) -> sa.Select[Any]:
    """Return the query for the facts of a seal other than the positions, in one statement and so of one snapshot."""
    end = window_parts.c.window_end_us
    last_part = sa.select(sa.func.max(end)).where(*is_waiting_part(STREAM_ID))
    return sa.select(
        clock.label("now_us"),
        streams.c.sealed_until_us,
        streams.c.last_tick_us,
        streams.c.settings_revision,
        LAST_JUDGED_END.scalar_subquery().label("last_judged_end_us"),
        FIRST_UNJUDGED_END.scalar_subquery().label("first_part_end_us"),
        last_part.scalar_subquery().label("last_part_end_us"),
    ).where(streams.c.id == STREAM_ID)


class WindowStore:
    """Seals streams and judges windows, one transaction at a time per stream."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._stream_facts = _select_stream_facts(db.clock_expression())

    def seal(self, stream_id: int, decide: Callable[[SealFacts], int | None]) -> int | None:
        """Set `sealed_until_us` to the result of `decide`; return it, or None if the seal did not move.

        The facts are read once without locks, so that a seal with nothing to move writes nothing, and then decided
        again with the position rows locked in order. No commit of this stream can therefore be between its guard and
        its end while the watermarks are read.
        """
        with self._db.read() as conn:
            if decide(self._read_seal_facts(conn, stream_id)) is None:
                return None
        with self._db.write() as conn:
            lock_stream(conn, stream_id)
            conn.execute(_LOCK_POSITIONS, {"stream_id": stream_id}).all()
            facts = self._read_seal_facts(conn, stream_id)
            target = decide(facts)
            if target is None:
                return None
            sealed_until = streams.c.sealed_until_us
            unchanged = (
                sealed_until.is_(None) if facts.sealed_until_us is None else sealed_until == facts.sealed_until_us
            )
            updated = conn.execute(
                streams.update().where(streams.c.id == stream_id, unchanged).values(sealed_until_us=target)
            )
            return target if updated.rowcount == 1 else None

    def _read_seal_facts(self, conn: sa.Connection, stream_id: int) -> SealFacts:
        sources = conn.execute(_POSITIONS, {"stream_id": stream_id}).all()
        stream = conn.execute(self._stream_facts, {"stream_id": stream_id}).one()
        return SealFacts(
            now_us=stream.now_us,
            sources=[
                SourceFacts(
                    watermark_us=row.watermark_us,
                    idle=row.idle_until_us > stream.now_us,
                    ended=row.idle_until_us == FOREVER_US,
                    idle_seen_us=row.idle_seen_us,
                )
                for row in sources
            ],
            sealed_until_us=stream.sealed_until_us,
            last_tick_us=stream.last_tick_us,
            settings_revision=stream.settings_revision,
            last_judged_end_us=stream.last_judged_end_us,
            first_part_end_us=stream.first_part_end_us,
            last_part_end_us=stream.last_part_end_us,
        )

    def all_ended(self, stream_id: int) -> bool:
        """Return whether every active source of the stream has ended, whichever process owns it."""
        active = sa.select(positions.c.idle_until_us).where(positions.c.stream_id == stream_id, positions.c.active)
        with self._db.read() as conn:
            return all(until == FOREVER_US for until in conn.execute(active).scalars())

    def due_windows(self, stream_id: int, limit: int = 1_000) -> list[int]:
        """Return the starts of sealed windows that have parts, in order."""
        with self._db.read() as conn:
            return list(conn.execute(_DUE_WINDOWS, {"stream_id": stream_id, "row_limit": limit}).scalars())

    def read_window(self, stream_id: int, window_start_us: int) -> WindowFacts | None:
        """Return the facts of a window with stored parts; None without parts."""
        with self._db.read() as conn:
            facts = read_window_facts(conn, stream_id, window_start_us)
        return facts if facts.parts else None

    def store_judgement(self, stream_id: int, stream: str, facts: WindowFacts, judgement: Judgement) -> bool:
        """Store a judgement if its facts still hold; return whether it was stored.

        One transaction inserts the window, its incidents, their transitions and notifications, and deletes the parts.
        It compares and swaps: nothing is stored if the parts were judged, or if the open incidents, the gaps or the
        judge state have changed since the facts were read. Parts that were committed since then remain for the next
        call: they can only hold late events.
        """
        with self._db.write() as conn:
            lock_stream(conn, stream_id)
            if not self._still_holds(conn, stream_id, facts):
                return False
            self._store_judgement(conn, stream_id, stream, judgement)
            conn.execute(window_parts.delete().where(window_parts.c.id.in_(facts.part_ids)))
            return True

    def add_late_parts(self, stream_id: int, window_start_us: int) -> bool:
        """Add the late events, dead letters and filtered records of stored parts to their judged window.

        Return whether any were added.

        Raises:
            RuntimeError: A part has events that are not late.
        """
        with self._db.write() as conn:
            lock_stream(conn, stream_id)
            facts = read_window_facts(conn, stream_id, window_start_us)
            if not facts.parts or not facts.is_judged:
                return False
            self._add_late_counts(conn, stream_id, facts)
            conn.execute(window_parts.delete().where(window_parts.c.id.in_(facts.part_ids)))
            return True

    def first_open_window(self, stream_id: int) -> OpenWindow | None:
        """Return the window that starts at the seal, if it has events; None otherwise."""
        with self._db.read() as conn:
            row = conn.execute(_FIRST_OPEN_WINDOW, {"stream_id": stream_id}).first()
        if row is None:
            return None
        return OpenWindow(
            window_start_us=row.window_start_us,
            threshold_id=row.threshold_id,
            events=int(row.events),
            outliers=int(row.outliers),
        )

    def open_outlier_parts(
        self, stream_id: int, window_start_us: int, known: Collection[int]
    ) -> list[tuple[int, bytes]]:
        """Return id and payload of the parts of a window that have outliers, those with known ids left out.

        Commits of several processes end in any order, so that the ids of new parts need not be the largest ones.
        """
        of_window = {"stream_id": stream_id, "start_us": window_start_us}
        with self._db.read() as conn:
            ids = [each for each in conn.execute(_OUTLIER_PART_IDS, of_window).scalars() if each not in known]
            if not ids:
                return []
            rows = conn.execute(
                sa.select(window_parts.c.id, window_parts.c.payload).where(window_parts.c.id.in_(ids[:_MAX_READ_PARTS]))
            )
            return [(row.id, bytes(row.payload)) for row in rows]

    def open_incidents_early(self, stream_id: int, stream: str, facts: WindowFacts, rows: Sequence[Incident]) -> bool:
        """Store the incidents of a window that is not sealed yet; return whether they were stored.

        Nothing is stored if the window is no longer the first open one, or if an earlier window is not judged yet:
        the incidents of a window depend on all windows before it. The facts must still hold, as in `store_judgement`;
        further parts may have been committed, since the judgement of the full window replaces the numbers.
        """
        with self._db.write() as conn:
            lock_stream(conn, stream_id)
            sealed_until_us = conn.execute(
                sa.select(streams.c.sealed_until_us).where(streams.c.id == stream_id)
            ).scalar_one()
            is_earlier = window_parts.c.window_start_us < facts.window_start_us
            earlier = conn.execute(
                sa.select(window_parts.c.id).where(*is_unjudged_part(stream_id), is_earlier).limit(1)
            ).first()
            if sealed_until_us != facts.window_start_us or earlier is not None:
                return False
            if not self._still_holds(conn, stream_id, facts):
                return False
            for row in rows:
                write_incident(self._db, conn, stream_id, stream, row)
            return True

    def _still_holds(self, conn: sa.Connection, stream_id: int, facts: WindowFacts) -> bool:
        """Return whether the parts still exist and all other facts are unchanged; further parts are allowed."""
        of_window = {"stream_id": stream_id, "start_us": facts.window_start_us}
        part_ids = set(conn.execute(_PART_IDS, of_window).scalars())
        return (
            part_ids.issuperset(facts.part_ids)
            and read_last_judged_end(conn, stream_id) == facts.last_judged_end_us
            and open_incidents(conn, stream_id) == facts.open_incidents
            and read_unassigned_gaps(conn, stream_id, facts.window_end_us) == facts.gaps
            and read_judge_state(conn, stream_id) == facts.state
        )

    def _add_late_counts(self, conn: sa.Connection, stream_id: int, facts: WindowFacts) -> None:
        if any(part.events for part in facts.parts):
            raise RuntimeError(
                f"window {facts.window_start_us} of stream {stream_id} was judged before all its events were "
                "committed; the ledger's seal check should have rejected this commit"
            )
        of_window = (windows.c.stream_id == stream_id, windows.c.window_start_us == facts.window_start_us)
        added = {
            column.name: column + sum(getattr(part, column.name) for part in facts.parts)
            for column in (windows.c.late, windows.c.dead, windows.c.filtered)
        }
        conn.execute(windows.update().where(*of_window).values(added))
        counts = {name: sum(getattr(part, name) for part in facts.parts) for name in ("late", "dead", "filtered")}
        change = WindowChange(start_us=facts.window_start_us, end_us=facts.window_end_us, windows=0, **counts)
        add_to_rollups(self._db, conn, stream_id, change)

    def _store_judgement(self, conn: sa.Connection, stream_id: int, stream: str, judgement: Judgement) -> None:
        row = judgement.window
        conn.execute(
            windows.insert().values(
                stream_id=stream_id,
                window_start_us=row.window_start_us,
                window_end_us=row.window_end_us,
                threshold_id=row.threshold_id,
                events=row.events,
                outliers=row.outliers,
                late=row.late,
                dead=row.dead,
                filtered=row.filtered,
                expected=row.expected,
                p_value=row.p_value,
                energy_p50=row.energy_p50,
                energy_p99=row.energy_p99,
                energy_max=row.energy_max,
                fires_at=row.fires_at,
                payload=row.payload,
                details=None if row.details is None else json.dumps(row.details),
                judged_at_us=self._db.now_us(conn) if row.judged else None,
            )
        )
        if not row.events:
            # Its time may be summed up already: an idle source has sent late events or dead letters since.
            add_to_rollups(self._db, conn, stream_id, _describe_change(row))
        if judgement.sample is not None:
            insert_sample(conn, stream_id, row, judgement.sample)
        ids_by_kind = {
            incident.kind: write_incident(self._db, conn, stream_id, stream, incident)
            for incident in judgement.incidents
        }
        if judgement.state is not None:
            state = json.dumps(judgement.state)
            conn.execute(streams.update().where(streams.c.id == stream_id).values(judge_state=state))
        if judgement.habitual_keys:
            write_habitual_keys(conn, stream_id, judgement.habitual_keys, self._db.now_us(conn))
        if judgement.gap_ids:
            conn.execute(gaps.update().where(gaps.c.id.in_(judgement.gap_ids)).values(incident_id=ids_by_kind["gap"]))


def _describe_change(row: WindowRow) -> WindowChange:
    return WindowChange(
        start_us=row.window_start_us,
        end_us=row.window_end_us,
        windows=int(row.judged),
        late=row.late,
        dead=row.dead,
        filtered=row.filtered,
    )
