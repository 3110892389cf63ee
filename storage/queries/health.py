"""The rows of the view `health`, for `outrider status`."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from storage.control.health import HELD_STATE
from storage.database.engine import Database

WELL_STATES = frozenset({"running", "warming_up", "ended", "starting", HELD_STATE})
"""The states of a component that need nobody's action."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthRow:
    """A row of the view: the state of a stream (component `stream`) or of a part with a problem."""

    stream: str | None
    component: str
    state: str
    since_us: int | None
    reason: str | None

    @property
    def is_well(self) -> bool:
        """Return whether the state needs nobody's action."""
        return self.state in WELL_STATES


def read_health(db: Database) -> list[HealthRow]:
    """Return the health of all stored streams; of each stream, the row of the stream as a whole comes first."""
    view = sa.table("health", *(sa.column(name) for name in ("stream", "component", "state", "since_us", "reason")))
    is_part = sa.case((view.c.component == "stream", 0), else_=1)
    with db.read() as conn:
        rows = conn.execute(sa.select(view).order_by(view.c.stream, is_part, view.c.component))
        return [HealthRow(**row) for row in rows.mappings()]
