"""Acceptance of an incident as normal: the incident is resolved and its windows count in the look-back again.

`incidents.accepted_at_us` records the event time of the acceptance. `streams.acceptances` is incremented, so that a
daemon reloads its cached look-back windows. Stored judgements do not change; acceptance affects only later estimates.
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
from storage.control.records import Incident
from storage.database.engine import Database
from storage.database.locks import lock_stream
from storage.database.tables import accepted_references, incidents, streams, thresholds, windows

_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptanceFacts:
    """Input of the decision to accept an incident.

    `last_judged_window` is the (start, end) of the last judged window; None before the first.
    """

    incident: Incident
    last_judged_window: tuple[int, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedReference:
    """Ascending energies of a model that define its normal range from event time `at_us` on."""

    model_id: int
    at_us: int
    energies: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """Rows that accepting an incident writes.

    Attributes:
        incident_row: The resolved incident.
        at_us: Event time of the acceptance.
        adopt_since_us: Windows of the incident's kind that start at or after this time are adopted, which means that
            they count in the look-back again. None: the incident has no windows.
        accepted_rate_until_us: Until this time the outlier rate of the adopted windows is normal, even if the
            count model has learned a lower one.
        reference: New reference energies for the threshold's anchor. None: the reference does not change.
        rebase_from_us: Drift is measured against a new baseline from this time on. None: the baseline does not
            change.
    """

    incident_row: Incident
    at_us: int
    adopt_since_us: int | None
    accepted_rate_until_us: int
    reference: AcceptedReference | None = None
    rebase_from_us: int | None = None


def accept_incident(
    db: Database, stream_id: int, stream: str, incident_id: int, decide: Callable[[AcceptanceFacts], Acceptance]
) -> int | None:
    """Accept an open incident in one transaction; return the number of adopted windows.

    Returns None if the incident is no longer open because it was resolved or accepted in the meantime.
    """
    with db.write() as conn:
        lock_stream(conn, stream_id)
        incident = next((each for each in open_incidents(conn, stream_id) if each.id == incident_id), None)
        if incident is None:
            return None
        acceptance = decide(
            AcceptanceFacts(incident=incident, last_judged_window=_read_last_judged_window(conn, stream_id))
        )
        now_us = db.now_us(conn)
        n_adopted = 0
        if acceptance.adopt_since_us is not None:
            adopted = _adopt_windows(conn, stream_id, incident.kind, acceptance.adopt_since_us, now_us)
            _store_accepted_rate(conn, stream_id, adopted, acceptance.accepted_rate_until_us)
            n_adopted = len(adopted)
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
        return n_adopted


def _read_last_judged_window(conn: Connection, stream_id: int) -> tuple[int, int] | None:
    row = conn.execute(
        sa.select(windows.c.window_start_us, windows.c.window_end_us)
        .where(windows.c.stream_id == stream_id, windows.c.judged_at_us.is_not(None))
        .order_by(windows.c.window_start_us.desc())
        .limit(1)
    ).first()
    return None if row is None else (row.window_start_us, row.window_end_us)


def _adopt_windows(conn: Connection, stream_id: int, kind: str, since_us: int, now_us: int) -> Sequence[sa.Row[Any]]:
    """Mark the windows that fired for this kind since `since_us` as adopted; return them in order."""
    # The payloads are not read: an incident may have been open for a week.
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
    adopted = [row for row in fired if json.loads(row.details).get("fired") == kind]
    starts = [row.window_start_us for row in adopted]
    for at in range(0, len(starts), _CHUNK):
        in_chunk = (windows.c.stream_id == stream_id, windows.c.window_start_us.in_(starts[at : at + _CHUNK]))
        conn.execute(windows.update().where(*in_chunk).values(adopted_at_us=now_us))
    return adopted


def _store_accepted_rate(conn: Connection, stream_id: int, adopted: Sequence[sa.Row[Any]], until_us: int) -> None:
    """Store the outlier rate of the adopted windows in the judge state.

    Judging uses this rate until the thresholds and the count model have learned it, which takes one look-back.
    """
    events = sum(row.events for row in adopted)
    if not events:
        return
    model_id = conn.execute(
        sa.select(thresholds.c.model_id).where(thresholds.c.id == adopted[-1].threshold_id)
    ).scalar_one()
    rate = sum(row.outliers for row in adopted) / events
    of_stream = streams.c.id == stream_id
    judge_state = json.loads(conn.execute(sa.select(streams.c.judge_state).where(of_stream)).scalar_one() or "{}")
    before = judge_state.get("accepted", {})
    if before.get("model_id") == model_id and adopted[-1].window_start_us < before["until_us"]:
        rate = max(rate, before["rate"])  # the rate that was accepted before is still normal
    judge_state["accepted"] = {"rate": rate, "until_us": until_us, "model_id": model_id}
    conn.execute(streams.update().where(of_stream).values(judge_state=json.dumps(judge_state)))
