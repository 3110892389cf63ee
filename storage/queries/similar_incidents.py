"""Earlier incidents with similar contributions of the features, by the cosine of the stored vectors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from storage.database.tables import incidents

_COMPARED = 1_000
"""Number of incidents that are compared, the newest ones of the kind before the incident."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarIncident:
    """An earlier incident of the same kind; `similarity` is the cosine of the contributions, at most 1."""

    id: int
    kind: str
    severity: str
    status: str
    verdict: str | None
    opened_at_us: int
    resolved_at_us: int | None
    summary: str
    similarity: float


def read_similar_incidents(
    conn: Connection, incident_id: int, *, limit: int = 5, least: float = 0.5
) -> list[SimilarIncident]:
    """Return the earlier incidents of the stream and the kind whose contributions are most similar, best first.

    Args:
        conn: Connection to the database.
        incident_id: The incident; without contributions the list is empty.
        limit: Largest number of incidents.
        least: Smallest cosine.
    """
    table = incidents.c
    own = conn.execute(
        sa.select(table.stream_id, table.kind, table.opened_at_us, table.contributions).where(table.id == incident_id)
    ).one_or_none()
    if own is None or own.contributions is None:
        return []
    vector = json.loads(own.contributions)
    query = (
        sa.select(
            table.id,
            table.contributions,
        )
        .where(
            table.stream_id == own.stream_id,
            table.opened_at_us <= own.opened_at_us,
            table.kind == own.kind,
            table.id != incident_id,
            table.contributions.is_not(None),
        )
        .order_by(table.opened_at_us.desc(), table.id.desc())
        .limit(_COMPARED)
    )
    found = {row.id: cosine(vector, json.loads(row.contributions)) for row in conn.execute(query)}
    best = sorted((-value, -id_) for id_, value in found.items() if value >= least)[:limit]
    return _read_incidents(conn, {-id_: -value for value, id_ in best})


def cosine(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Return the cosine of two vectors by feature name; 0 if one of them is zero."""
    norm = sqrt(sum(value**2 for value in one.values()) * sum(value**2 for value in other.values()))
    return sum(value * other.get(name, 0.0) for name, value in one.items()) / norm if norm else 0.0


def _read_incidents(conn: Connection, similarities: Mapping[int, float]) -> list[SimilarIncident]:
    names = ("id", "kind", "severity", "status", "verdict", "opened_at_us", "resolved_at_us", "summary")
    query = sa.select(*(incidents.c[name] for name in names)).where(incidents.c.id.in_(similarities))
    rows = {row["id"]: row for row in conn.execute(query).mappings()}
    return [SimilarIncident(**rows[id_], similarity=round(value, 4)) for id_, value in similarities.items()]
