"""Effects of the verbs of people on the calibration of a stream, inside the transaction of a verb.

The windows of an incident count in the look-back again, or no longer. An accepted incident in addition sets the rate of
outliers that is normal, the reference of the threshold, or the baseline of drift; a later verb takes these back.
Stored judgements do not change; the effects act from the next tick on. `streams.acceptances` is incremented with each
change, so that a daemon reloads its cached look-back windows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from storage.control.drift import read_rebase, rebase_drift
from storage.control.window_facts import read_judge_state
from storage.database.tables import accepted_references, streams, thresholds, windows

_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedReference:
    """Ascending energies of a model that define its normal range from event time `at_us` on."""

    model_id: int
    at_us: int
    energies: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """What becomes normal with an accepted incident.

    Attributes:
        at_us: Event time of the acceptance.
        rate_until_us: Until this time the outlier rate of the incident's windows is normal, even if the count model has
            learned a lower one. None: the rate does not change.
        reference: New reference energies for the threshold's anchor. None: the reference does not change.
        rebase_from_us: Drift is measured against a new baseline from this time on. None: the baseline does not
            change.
    """

    at_us: int
    rate_until_us: int | None = None
    reference: AcceptedReference | None = None
    rebase_from_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FiredWindow:
    """A judged window in which the detector of an incident's kind fired."""

    window_start_us: int
    threshold_id: int
    events: int
    outliers: int
    adopted: bool


def read_fired_windows(
    conn: Connection, stream_id: int, kind: str, since_us: int, until_us: int | None
) -> list[FiredWindow]:
    """Return the windows that fired for a kind and start in [since, until), in order; None has no end."""
    # The payloads are not read: an incident may have been open for a week.
    columns = ("window_start_us", "threshold_id", "events", "outliers", "details", "adopted_at_us")
    conditions = [
        windows.c.stream_id == stream_id,
        windows.c.window_start_us >= since_us,
        windows.c.details.is_not(None),
    ]
    if until_us is not None:
        conditions.append(windows.c.window_start_us < until_us)
    rows = conn.execute(
        sa.select(*(windows.c[name] for name in columns)).where(*conditions).order_by(windows.c.window_start_us)
    )
    return [
        FiredWindow(
            window_start_us=row.window_start_us,
            threshold_id=row.threshold_id,
            events=row.events,
            outliers=row.outliers,
            adopted=row.adopted_at_us is not None,
        )
        for row in rows
        if json.loads(row.details).get("fired") == kind
    ]


def mark_adopted(
    conn: Connection, stream_id: int, fired: Sequence[FiredWindow], now_us: int, *, adopted: bool
) -> Sequence[FiredWindow]:
    """Let windows count in the look-back again, or no longer; return those that change."""
    changed = [window for window in fired if window.adopted is not adopted]
    starts = [window.window_start_us for window in changed]
    for at in range(0, len(starts), _CHUNK):
        in_chunk = (windows.c.stream_id == stream_id, windows.c.window_start_us.in_(starts[at : at + _CHUNK]))
        conn.execute(windows.update().where(*in_chunk).values(adopted_at_us=now_us if adopted else None))
    return changed


def store_acceptance(
    conn: Connection,
    stream_id: int,
    incident_id: int,
    acceptance: Acceptance,
    adopted: Sequence[FiredWindow],
    now_us: int,
) -> dict[str, Any]:
    """Store what becomes normal; return the effects as JSON, from which `withdraw_acceptance` takes them back."""
    effects: dict[str, Any] = {}
    if acceptance.rate_until_us is not None and any(window.events for window in adopted):
        effects["rate"] = _store_accepted_rate(conn, stream_id, incident_id, adopted, acceptance.rate_until_us)
    if acceptance.reference is not None:
        effects["reference_id"] = _store_reference(conn, stream_id, incident_id, acceptance.reference, now_us)
    if acceptance.rebase_from_us is not None:
        effects["rebase"] = {"before_us": read_rebase(conn, stream_id), "from_us": acceptance.rebase_from_us}
        rebase_drift(conn, stream_id, acceptance.rebase_from_us)
    return effects


def withdraw_acceptance(
    conn: Connection, stream_id: int, incident_id: int, effects: Mapping[str, Any], now_us: int
) -> None:
    """Take the effects of an acceptance back. What a later acceptance of another incident has replaced is kept."""
    if "rate" in effects:
        _restore_accepted_rate(conn, stream_id, incident_id, effects["rate"]["before"])
    if "reference_id" in effects:
        of_row = accepted_references.c.id == effects["reference_id"]
        conn.execute(accepted_references.update().where(of_row).values(withdrawn_at_us=now_us))
    if "rebase" in effects and read_rebase(conn, stream_id) == effects["rebase"]["from_us"]:
        rebase_drift(conn, stream_id, effects["rebase"]["before_us"])


def increment_acceptances(conn: Connection, stream_id: int) -> None:
    """Increment the number of changes of the calibration by people."""
    conn.execute(streams.update().where(streams.c.id == stream_id).values(acceptances=streams.c.acceptances + 1))


def _store_reference(
    conn: Connection, stream_id: int, incident_id: int, reference: AcceptedReference, now_us: int
) -> int:
    insert = accepted_references.insert().values(
        stream_id=stream_id,
        model_id=reference.model_id,
        incident_id=incident_id,
        energies=reference.energies.astype("<f4").tobytes(),
        at_us=reference.at_us,
        recorded_at_us=now_us,
    )
    return int(conn.execute(insert.returning(accepted_references.c.id)).scalar_one())


def _store_accepted_rate(
    conn: Connection, stream_id: int, incident_id: int, adopted: Sequence[FiredWindow], until_us: int
) -> dict[str, Any]:
    """Store the outlier rate of the adopted windows in the judge state; return the rate before and after.

    Judging uses this rate until the thresholds and the count model have learned it, which takes one look-back.
    """
    model_id = conn.execute(
        sa.select(thresholds.c.model_id).where(thresholds.c.id == adopted[-1].threshold_id)
    ).scalar_one()
    rate = sum(window.outliers for window in adopted) / sum(window.events for window in adopted)
    judge_state = read_judge_state(conn, stream_id)
    before = judge_state.get("accepted")
    if before and before.get("model_id") == model_id and adopted[-1].window_start_us < before["until_us"]:
        rate = max(rate, before["rate"])  # the rate that was accepted before is still normal
    after = {"rate": rate, "until_us": until_us, "model_id": model_id, "incident_id": incident_id}
    write_judge_state(conn, stream_id, judge_state | {"accepted": after})
    return {"before": before, "after": after}


def _restore_accepted_rate(
    conn: Connection, stream_id: int, incident_id: int, before: Mapping[str, Any] | None
) -> None:
    judge_state = read_judge_state(conn, stream_id)
    if judge_state.get("accepted", {}).get("incident_id") != incident_id:
        return
    del judge_state["accepted"]
    write_judge_state(conn, stream_id, judge_state if before is None else judge_state | {"accepted": before})


def write_judge_state(conn: Connection, stream_id: int, state: Mapping[str, Any]) -> None:
    """Store the judge state of a stream, inside of the transaction that has read it under lock."""
    conn.execute(streams.update().where(streams.c.id == stream_id).values(judge_state=json.dumps(state)))
