"""Insertion of a commit's rows other than scores: outliers, dead letters, a gap and parts."""

from __future__ import annotations

import json

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from config.time_format import MINUTE_US
from storage.database.tables import dead_letters, gaps
from storage.database.texts import make_storable
from storage.ledger.bulk import insert_columns, shortest_decimals
from storage.ledger.commit import Commit, OutlierColumns
from storage.ledger.dead_letter_quota import DeadLetterUsage, apply_dead_letter_quota


def features_to_json(outliers: OutlierColumns) -> list[str]:
    """Return each outlier's features as a JSON object, with the shortest decimals that round-trip as float32."""
    names = make_storable(outliers.feature_names)
    return [
        json.dumps(dict(zip(names, shortest_decimals(row), strict=True)), ensure_ascii=False)
        for row in outliers.features
    ]


def insert_outliers(connection: Connection, commit: Commit, stored_at_us: int, features: list[str]) -> None:
    """Insert the outliers of a commit, with their features as JSON."""
    columns = commit.outliers
    n = len(columns)
    insert_columns(
        connection,
        "outliers",
        {
            "source_id": [commit.source_id] * n,
            "source_offset": columns.offsets.tolist(),
            "event_time_us": columns.times_us.tolist(),
            "energy": columns.energies.tolist(),
            "threshold_id": columns.threshold_ids.tolist(),
            "stored_at_us": [stored_at_us] * n,
            "key": [None] * n if columns.keys is None else make_storable(columns.keys),
            "event_id": [None] * n if columns.ids is None else make_storable(columns.ids),
            "features": features,
        },
    )


def insert_dead_letters(connection: Connection, commit: Commit, recorded_at_us: int) -> None:
    """Insert the dead letters of a commit within the quota of the current minute."""
    minute = recorded_at_us // MINUTE_US * MINUTE_US
    usage_by_reason = connection.execute(
        sa.select(dead_letters.c.reason, sa.func.count(), sa.func.count(dead_letters.c.payload))
        .where(dead_letters.c.source_id == commit.source_id, dead_letters.c.recorded_at_us >= minute)
        .group_by(dead_letters.c.reason)
    )
    usage = {reason: DeadLetterUsage(rows=rows, payloads=payloads) for reason, rows, payloads in usage_by_reason}
    rows = apply_dead_letter_quota(commit.dead, usage)
    n = len(rows.count)
    insert_columns(
        connection,
        "dead_letters",
        {
            "source_id": [commit.source_id] * n,
            "source_offset": rows.source_offset,
            "end_offset": rows.end_offset,
            "count": rows.count,
            "reason": make_storable(rows.reason),
            "detail": make_storable(rows.detail),
            "payload": rows.payload,
            "recorded_at_us": [recorded_at_us] * n,
        },
    )


def insert_gap(connection: Connection, commit: Commit, recorded_at_us: int) -> None:
    """Insert the range of a commit that could not be read."""
    connection.execute(
        sa.insert(gaps).values(
            source_id=commit.source_id,
            from_offset=commit.begin,
            to_offset=commit.end,
            reason=commit.gap_reason,
            recorded_at_us=recorded_at_us,
            event_time_us=commit.watermark_us,
        )
    )


def insert_parts(connection: Connection, commit: Commit) -> None:
    """Insert the parts of a commit."""
    parts = commit.parts
    n = len(parts)
    insert_columns(
        connection,
        "window_parts",
        {
            "stream_id": [commit.stream_id] * n,
            "source_id": [commit.source_id] * n,
            "window_start_us": [part.window_start_us for part in parts],
            "window_end_us": [part.window_end_us for part in parts],
            "threshold_id": [part.threshold_id for part in parts],
            "events": [part.events for part in parts],
            "outliers": [part.outliers for part in parts],
            "late": [part.late for part in parts],
            "dead": [part.dead for part in parts],
            "payload": [part.payload for part in parts],
            "first_offset": [part.first_offset for part in parts],
            "last_offset": [part.last_offset for part in parts],
        },
    )


def insert_shadow_parts(connection: Connection, commit: Commit) -> None:
    """Insert the parts of a commit for shadow models."""
    parts = commit.shadow_parts
    insert_columns(
        connection,
        "shadow_parts",
        {
            "stream_id": [commit.stream_id] * len(parts),
            "model_id": [part.model_id for part in parts],
            "window_start_us": [part.window_start_us for part in parts],
            "window_end_us": [part.window_end_us for part in parts],
            "payload": [part.payload for part in parts],
        },
    )
