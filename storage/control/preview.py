"""Reads for the preview of a verb: the windows and references as they would be after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from storage.control.acceptance import FiredWindow, read_fired_windows
from storage.control.thresholds import ConfirmedRange, ThresholdRow, ThresholdStore, to_threshold
from storage.control.verbs import WINDOWED_KINDS, VerbFacts, VerbPlan, read_effects_of_acceptance
from storage.database.engine import Database
from storage.database.tables import accepted_references, streams, thresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewTick:
    """The last tick of a stream: the row that it stored, and the row before it."""

    tick_us: int
    stored: ThresholdRow
    previous: ThresholdRow


class PreviewThresholdStore(ThresholdStore):
    """Reads the windows of a stream as they would be after a verb, and stores nothing.

    Args:
        db: The database.
        facts: The facts of the incident.
        plan: The rows that the verb would write. None: the stored state.
    """

    def __init__(self, db: Database, facts: VerbFacts, plan: VerbPlan | None) -> None:
        super().__init__(db)
        self._facts = facts
        self._plan = plan
        self.fired = self._read_fired()
        self._changes = plan is not None and plan.windows is not None
        self._starts = frozenset(window.window_start_us for window in self.fired)

    @property
    def changed_windows(self) -> int:
        """Return the number of windows that would count again, or no longer."""
        if self._plan is None or not self._changes:
            return 0
        return sum(window.adopted is not self._plan.windows for window in self.fired)

    def _read_fired(self) -> Sequence[FiredWindow]:
        incident = self._facts.incident
        if incident.kind not in WINDOWED_KINDS:
            return ()
        with self._db.read() as conn:
            return read_fired_windows(
                conn, self._facts.stream_id, incident.kind, incident.window_start_us, incident.resolved_at_us
            )

    def _is_adopted(self, window_start_us: int, adopted_at_us: int | None) -> bool:
        if self._plan is not None and self._changes and window_start_us in self._starts:
            return bool(self._plan.windows)
        return super()._is_adopted(window_start_us, adopted_at_us)

    def _read_confirmed(self, stream_id: int) -> list[ConfirmedRange]:
        incident = self._facts.incident
        assert incident.id is not None, "facts are read from the database"
        found = super()._read_confirmed(stream_id)
        if self._plan is None:
            return found
        others = [each for each in found if each.incident_id != incident.id]
        if self._plan.verdict != "confirmed":
            return others
        after = self._plan.incident_row
        own = ConfirmedRange(incident.id, incident.kind, incident.window_start_us, after.resolved_at_us)
        return [*others, own]

    def accepted_reference(self, model_id: int) -> NDArray[np.float32] | None:
        """Return the accepted reference of a model after the verb; None: the model's own reference holds."""
        plan = self._plan
        if plan is None:
            return super().accepted_reference(model_id)
        reference = None if plan.acceptance is None else plan.acceptance.reference
        if reference is not None and reference.model_id == model_id:
            return reference.energies
        withdrawn = self._find_withdrawn()
        query = (
            sa.select(accepted_references.c.energies)
            .where(
                accepted_references.c.model_id == model_id,
                accepted_references.c.withdrawn_at_us.is_(None),
                accepted_references.c.id != withdrawn,
            )
            .order_by(accepted_references.c.id.desc())
            .limit(1)
        )
        with self._db.read() as conn:
            stored = conn.execute(query).scalar_one_or_none()
        return None if stored is None else np.frombuffer(bytes(stored), "<f4").astype(np.float32)

    def _find_withdrawn(self) -> int:
        """Return the id of the reference that the verb takes back; -1 if there is none."""
        incident, plan = self._facts.incident, self._plan
        if self._facts.verdict != "accepted" or plan is None or not plan.changes_calibration or incident.id is None:
            return -1
        with self._db.read() as conn:
            return int(read_effects_of_acceptance(conn, incident.id).get("reference_id", -1))

    def last_tick(self) -> PreviewTick | None:
        """Return the last tick of the stream.

        None before the first tick, after a change of the model since then, and if the row before it is deleted.
        """
        stream_id = self._facts.stream_id
        newest = (
            sa.select(thresholds)
            .where(thresholds.c.stream_id == stream_id)
            .order_by(thresholds.c.valid_from_us.desc(), thresholds.c.id.desc())
            .limit(2)
        )
        with self._db.read() as conn:
            tick_us = conn.execute(sa.select(streams.c.last_tick_us).where(streams.c.id == stream_id)).scalar()
            rows = [to_threshold(row) for row in conn.execute(newest)]
        if tick_us is None or len(rows) < 2 or rows[0].computed_at_us != tick_us:
            return None
        if rows[0].model_id != rows[1].model_id:
            return None
        return PreviewTick(tick_us=tick_us, stored=rows[0], previous=rows[1])
