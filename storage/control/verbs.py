"""The transaction that applies a verb of a person to an incident, with its audit row."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.control.acceptance import (
    Acceptance,
    increment_acceptances,
    mark_adopted,
    read_fired_windows,
    store_acceptance,
    withdraw_acceptance,
    write_judge_state,
)
from storage.control.habitual_keys import write_habitual_keys
from storage.control.incidents import to_incident, write_incident
from storage.control.records import HabitualKeyRow, Incident
from storage.control.used_links import LinkUse, record_link_use
from storage.control.window_facts import read_judge_state, read_last_judged_end
from storage.database.engine import Database
from storage.database.locks import lock_stream
from storage.database.tables import incident_verbs, incidents, streams, windows

ACCEPT_KEY = "accept_key"
"""Name of the acceptance of a key in the audit rows: it does not act on the incident that names the key."""

WINDOWED_KINDS = frozenset({"spike", "slow_rise"})
"""Kinds whose findings leave windows out of the look-back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """The state of a stream that a preview was computed from.

    `tick_us` is its last tick, and `revision` grows with each change of the calibration by a person and with each
    change of its models.
    """

    tick_us: int | None
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VerbFacts:
    """Input of the decision on a verb.

    Attributes:
        incident: The incident.
        stream_id: Its stream.
        stream: Name of the stream.
        verdict: The verdict on it, or None.
        acknowledged_by: The person who acknowledged it, or None.
        last_verb: The last verb that was applied to it, other than the acceptance of a key, or None.
        later_id: A later incident of the same kind and stream, or None.
        last_judged_window: The (start, end) of the last judged window; None before the first.
        basis: The state of the stream.
        judge_state: The judge state after the last judged window.
    """

    incident: Incident
    stream_id: int
    stream: str
    verdict: str | None
    acknowledged_by: str | None
    last_verb: str | None
    later_id: int | None
    last_judged_window: tuple[int, int] | None
    basis: Basis
    judge_state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """A change of the habitual keys of a stream by a person.

    Attributes:
        state: The entry `keys` of the judge state afterwards.
        rows: The changed rows of habitual keys.
        effects: The keys and their rates, for the audit row.
    """

    state: Mapping[str, Any]
    rows: Sequence[HabitualKeyRow]
    effects: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerbPlan:
    """Rows that a verb writes.

    Attributes:
        verb: Name of the verb.
        who: Name of the person.
        note: Note of the person, or None.
        now_us: Time of the verb on the database's clock.
        incident_row: The incident afterwards, with its transition.
        verdict: The verdict afterwards.
        windows: Whether the windows of the incident count in the look-back: True, False, or None for no change.
        changes_calibration: Whether values that were computed from windows are out of date.
        acceptance: What becomes normal with an accepted incident.
        keys: The change of the habitual keys.
    """

    verb: str
    who: str
    note: str | None
    now_us: int
    incident_row: Incident
    verdict: str | None
    windows: bool | None
    changes_calibration: bool
    acceptance: Acceptance | None = None
    keys: KeyChange | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerbResult:
    """The result of a verb.

    `outcome` is `unchanged` if the verb was repeated, `unknown` if there is no such incident, `stale` if the basis has
    changed, `used` if the link has acted before. `windows` is the number of windows that count again, or no longer.
    """

    outcome: Literal["done", "unchanged", "unknown", "stale", "used"]
    facts: VerbFacts | None = None
    windows: int = 0
    effects: Mapping[str, Any] = field(default_factory=dict)


class VerbStore:
    """Reads the facts of verbs, and applies verbs."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def facts(self, incident_id: int) -> VerbFacts | None:
        """Return the facts of an incident; None if it does not exist."""
        with self._db.read() as conn:
            return _read_facts(conn, incident_id)

    def now_us(self) -> int:
        """Return the time on the database's clock."""
        return self._db.now_us()

    def apply(
        self,
        incident_id: int,
        decide: Callable[[VerbFacts], VerbPlan | None],
        basis: Basis | None = None,
        link: LinkUse | None = None,
    ) -> VerbResult:
        """Apply a verb in one transaction.

        Args:
            incident_id: The incident.
            decide: Maps the facts to the rows to write, or to None if the verb is repeated; it may raise.
            basis: The basis of the preview; nothing is written if it has changed. None: any basis.
            link: The signed link that the person has used; nothing is written if it has acted before. None: no link.
        """
        stream_id = self._find_stream(incident_id)
        if stream_id is None:
            return VerbResult(outcome="unknown")
        with self._db.write() as conn:
            lock_stream(conn, stream_id)
            facts = _read_facts(conn, incident_id)
            if facts is None:
                return VerbResult(outcome="unknown")
            if basis is not None and basis != facts.basis:
                return VerbResult(outcome="stale", facts=facts)
            if link is not None and not record_link_use(conn, link, self._db.now_us(conn)):
                return VerbResult(outcome="used", facts=facts)
            plan = decide(facts)
            if plan is None:
                return VerbResult(outcome="unchanged", facts=facts)
            changed, effects = self._change_calibration(conn, stream_id, incident_id, facts, plan)
            if plan.keys is not None:
                # The transaction of a judgement compares the judge state, so that no window misses the change.
                write_judge_state(conn, stream_id, {**read_judge_state(conn, stream_id), "keys": plan.keys.state})
                write_habitual_keys(conn, stream_id, plan.keys.rows, plan.now_us)
                effects |= plan.keys.effects
            self._write(conn, stream_id, incident_id, facts, plan, effects)
            return VerbResult(outcome="done", facts=facts, windows=changed, effects=effects)

    def _find_stream(self, incident_id: int) -> int | None:
        with self._db.read() as conn:
            return conn.execute(sa.select(incidents.c.stream_id).where(incidents.c.id == incident_id)).scalar()

    def _change_calibration(
        self, conn: Connection, stream_id: int, incident_id: int, facts: VerbFacts, plan: VerbPlan
    ) -> tuple[int, dict[str, Any]]:
        """Change the calibration; return the number of windows that changed, and the effects as JSON."""
        if not plan.changes_calibration:
            return 0, {}
        if facts.verdict == "accepted":
            accepted = read_effects_of_acceptance(conn, incident_id)
            withdraw_acceptance(conn, stream_id, incident_id, accepted, plan.now_us)
        fired = []
        before = facts.incident
        if plan.windows is not None and before.kind in WINDOWED_KINDS:
            fired = read_fired_windows(conn, stream_id, before.kind, before.window_start_us, before.resolved_at_us)
        changed = mark_adopted(conn, stream_id, fired, plan.now_us, adopted=bool(plan.windows))
        effects: dict[str, Any] = {"windows": len(changed)}
        if plan.acceptance is not None:
            effects |= store_acceptance(conn, stream_id, incident_id, plan.acceptance, changed, plan.now_us)
        increment_acceptances(conn, stream_id)
        return len(changed), effects

    def _write(
        self,
        conn: Connection,
        stream_id: int,
        incident_id: int,
        facts: VerbFacts,
        plan: VerbPlan,
        effects: Mapping[str, Any],
    ) -> None:
        write_incident(self._db, conn, stream_id, facts.stream, plan.incident_row)
        values: dict[str, Any] = {"verdict": plan.verdict}
        if plan.verdict != "accepted" or plan.acceptance is not None:
            values["accepted_at_us"] = None if plan.acceptance is None else plan.acceptance.at_us
        newly_acknowledged = (
            plan.incident_row.acknowledged_until_us is not None and facts.incident.acknowledged_until_us is None
        )
        if newly_acknowledged:
            values |= {"acknowledged_at_us": plan.now_us, "acknowledged_by": plan.who}
        conn.execute(incidents.update().where(incidents.c.id == incident_id).values(**values))
        acknowledged_by = plan.who if newly_acknowledged else facts.acknowledged_by
        judged = facts.last_judged_window
        conn.execute(
            incident_verbs.insert().values(
                incident_id=incident_id,
                stream_id=stream_id,
                verb=plan.verb,
                who=plan.who,
                note=plan.note,
                at_us=plan.now_us,
                judged_until_us=None if judged is None else judged[1],
                tick_us=facts.basis.tick_us,
                before=_state_json(facts.incident, facts.verdict, facts.acknowledged_by),
                after=_state_json(plan.incident_row, plan.verdict, acknowledged_by),
                effects=json.dumps(effects),
            )
        )


def _read_facts(conn: Connection, incident_id: int) -> VerbFacts | None:
    row = conn.execute(
        sa.select(incidents, streams.c.name, streams.c.last_tick_us, streams.c.acceptances, streams.c.revision)
        .join(streams, streams.c.id == incidents.c.stream_id)
        .where(incidents.c.id == incident_id)
    ).one_or_none()
    if row is None:
        return None
    last_verb = (
        sa.select(incident_verbs.c.verb)
        .where(incident_verbs.c.incident_id == incident_id, incident_verbs.c.verb != ACCEPT_KEY)
        .order_by(incident_verbs.c.id.desc())
        .limit(1)
    )
    later = sa.select(sa.func.max(incidents.c.id)).where(
        incidents.c.stream_id == row.stream_id, incidents.c.kind == row.kind, incidents.c.id > incident_id
    )
    return VerbFacts(
        incident=to_incident(row),
        stream_id=row.stream_id,
        stream=row.name,
        verdict=row.verdict,
        acknowledged_by=row.acknowledged_by,
        last_verb=conn.execute(last_verb).scalar(),
        later_id=conn.execute(later).scalar(),
        last_judged_window=_read_last_judged_window(conn, row.stream_id),
        # Both numbers only grow, so their sum changes with each of them.
        basis=Basis(tick_us=row.last_tick_us, revision=row.acceptances + row.revision),
        judge_state=read_judge_state(conn, row.stream_id),
    )


def _read_last_judged_window(conn: Connection, stream_id: int) -> tuple[int, int] | None:
    end_us = read_last_judged_end(conn, stream_id)
    if end_us is None:
        return None
    start_us = conn.execute(
        sa.select(sa.func.max(windows.c.window_start_us)).where(
            windows.c.stream_id == stream_id, windows.c.judged_at_us.is_not(None)
        )
    ).scalar_one()
    return start_us, end_us


def read_effects_of_acceptance(conn: Connection, incident_id: int) -> dict[str, Any]:
    """Return the effects of the last acceptance of an incident; empty for one of an earlier version."""
    query = (
        sa.select(incident_verbs.c.effects)
        .where(incident_verbs.c.incident_id == incident_id, incident_verbs.c.verb == "accept")
        .order_by(incident_verbs.c.id.desc())
        .limit(1)
    )
    return dict(json.loads(conn.execute(query).scalar() or "{}"))


def _state_json(incident: Incident, verdict: str | None, acknowledged_by: str | None) -> str:
    return json.dumps(
        {
            "status": incident.status,
            "severity": incident.severity,
            "verdict": verdict,
            "acknowledged_by": acknowledged_by if incident.acknowledged_until_us is not None else None,
        }
    )
