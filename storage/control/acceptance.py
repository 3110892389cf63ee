"""Storage room: a person takes what was found for normal: the incident ends, its windows count again.

`incidents.accepted_at_us` says up to which event time; `streams.acceptances` moves, so that whatever a daemon keeps in
memory of the windows is read anew. Nothing that was decided is changed, only what is learned from now on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from storage.control.drift import rebase_drift
from storage.control.incidents import open_incidents, write_incident
from storage.control.records import IncidentRow, StoredIncident
from storage.database.engine import Database
from storage.database.locks import lock_stream
from storage.database.tables import accepted_references, incidents, streams, thresholds, windows

_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptanceFacts:
    """What accepting is decided on; `judged` is the last judged window, start and end, None before the first."""

    incident: StoredIncident
    last_judged_window: tuple[int, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedReference:
    """The energies of a model that count as normal from now on, ascending, as of event time `at_us`."""

    model_id: int
    at_us: int
    energies: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """What accepting writes.

    `row` is the incident's end, at event time `at_us`; `adopt_since_us` since when its windows are taken back, None
    where it has none; until `hold_until_us` their rate of outliers is normal, whatever has been learned; `reference`
    is what the limit's guard goes by from now on, and from `rebase_from_us` on drift is measured anew.
    """

    incident_row: IncidentRow
    at_us: int
    adopt_since_us: int | None
    accepted_rate_until_us: int
    reference: AcceptedReference | None = None
    rebase_from_us: int | None = None


def accept_incident(
    db: Database, stream_id: int, stream: str, incident_id: int, decide: Callable[[AcceptanceFacts], Acceptance]
) -> int | None:
    """Accept an open incident in one transaction; return how many windows were taken back.

    None where the incident is no longer open: it was resolved or accepted meanwhile.
    """
    with db.write() as conn:
        lock_stream(conn, stream_id)
        found = next((each for each in open_incidents(conn, stream_id) if each.id == incident_id), None)
        if found is None:
            return None
        acceptance = decide(
            AcceptanceFacts(incident=found, last_judged_window=_read_last_judged_window(conn, stream_id))
        )
        now_us = db.now_us(conn)
        adopted = 0
        if acceptance.adopt_since_us is not None:
            taken = _adopt_windows(conn, stream_id, found.kind, acceptance.adopt_since_us, now_us)
            _store_accepted_rate(conn, stream_id, taken, acceptance.accepted_rate_until_us)
            adopted = len(taken)
        if acceptance.reference is not None:
            conn.execute(
                accepted_references.insert().values(
                    stream_id=stream_id,
                    model_id=acceptance.reference.model_id,
                    incident_id=incident_id,
                    energies=acceptance.reference.energies.astype("<f4").tobytes(),
                    at_us=acceptance.reference.at_us,
                    recorded_at_us=now_us,
                )
            )
        if acceptance.rebase_from_us is not None:
            rebase_drift(conn, stream_id, acceptance.rebase_from_us)
        write_incident(db, conn, stream_id, stream, acceptance.incident_row)
        conn.execute(incidents.update().where(incidents.c.id == incident_id).values(accepted_at_us=acceptance.at_us))
        conn.execute(streams.update().where(streams.c.id == stream_id).values(acceptances=streams.c.acceptances + 1))
        return adopted


def _read_last_judged_window(conn: Connection, stream_id: int) -> tuple[int, int] | None:
    row = conn.execute(
        sa.select(windows.c.window_start_us, windows.c.window_end_us)
        .where(windows.c.stream_id == stream_id, windows.c.judged_at_us.is_not(None))
        .order_by(windows.c.window_start_us.desc())
        .limit(1)
    ).first()
    return None if row is None else (row.window_start_us, row.window_end_us)


def _adopt_windows(conn: Connection, stream_id: int, kind: str, since_us: int, now_us: int) -> Sequence[sa.Row[Any]]:
    """Take back the windows since then in which this kind was found; return them in order."""
    # Never the payloads: an incident may have been open for a week.
    columns = ("window_start_us", "threshold_id", "events", "outliers", "details")
    fired = conn.execute(
        sa.select(*(windows.c[name] for name in columns))
        .where(
            windows.c.stream_id == stream_id,
            windows.c.window_start_us >= since_us,
            windows.c.details.is_not(None),
            windows.c.adopted_at_us.is_(None),
        )
        .order_by(windows.c.window_start_us)
    )
    taken = [row for row in fired if json.loads(row.details).get("fired") == kind]
    starts = [row.window_start_us for row in taken]
    for at in range(0, len(starts), _CHUNK):
        chosen = (windows.c.stream_id == stream_id, windows.c.window_start_us.in_(starts[at : at + _CHUNK]))
        conn.execute(windows.update().where(*chosen).values(adopted_at_us=now_us))
    return taken


def _store_accepted_rate(conn: Connection, stream_id: int, taken: Sequence[sa.Row[Any]], until_us: int) -> None:
    """Hand the rate of the windows on to judging: limits and laws take a look-back to learn it."""
    events = sum(row.events for row in taken)
    if not events:
        return
    model_id = conn.execute(
        sa.select(thresholds.c.model_id).where(thresholds.c.id == taken[-1].threshold_id)
    ).scalar_one()
    rate = sum(row.outliers for row in taken) / events
    of_stream = streams.c.id == stream_id
    carried = json.loads(conn.execute(sa.select(streams.c.judge_state).where(of_stream)).scalar_one() or "{}")
    before = carried.get("accepted", {})
    if before.get("model_id") == model_id and taken[-1].window_start_us < before["until_us"]:
        rate = max(rate, before["rate"])  # what was accepted before is normal still
    carried["accepted"] = {"rate": rate, "until_us": until_us, "model_id": model_id}
    conn.execute(streams.update().where(of_stream).values(judge_state=json.dumps(carried)))
