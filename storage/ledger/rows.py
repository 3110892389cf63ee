"""Insertion of the rows of commits other than scores: outliers, dead letters, gaps and parts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from config.time_format import MINUTE_US
from storage.database.tables import dead_letters, gaps
from storage.database.texts import make_storable
from storage.ledger.bulk import insert_columns, join_texts, shortest_decimals
from storage.ledger.commit import Commit, OutlierColumns
from storage.ledger.dead_letter_quota import DeadLetterUsage, apply_dead_letter_quota


def features_to_json(outliers: OutlierColumns) -> list[str]:
    """Return each outlier's features as a JSON object, with the shortest decimals that round-trip.

    The raw fields come first, the derived features behind them.
    """
    names = make_storable(outliers.feature_names)
    objects = [dict(zip(names, shortest_decimals(row), strict=True)) for row in outliers.features]
    if outliers.derived is not None:
        for own, (derived_names, values) in zip(objects, outliers.derived, strict=True):
            own.update(zip(make_storable(derived_names), shortest_decimals(values), strict=True))
    return [json.dumps(own, ensure_ascii=False) for own in objects]


def insert_outliers(
    connection: Connection, commits: Sequence[Commit], stored_at_us: int, features: Sequence[Sequence[str]]
) -> None:
    """Insert the outliers of commits, with their features as JSON: one list per commit."""
    outliers = [commit.outliers for commit in commits]
    sizes = [len(columns) for columns in outliers]
    if not any(sizes):
        return
    insert_columns(
        connection,
        "outliers",
        {
            "source_id": np.repeat([commit.source_id for commit in commits], sizes).tolist(),
            "source_offset": np.concatenate([columns.offsets for columns in outliers]).tolist(),
            "event_time_us": np.concatenate([columns.times_us for columns in outliers]).tolist(),
            "energy": np.concatenate([columns.energies for columns in outliers]).tolist(),
            "threshold_id": np.concatenate([columns.threshold_ids for columns in outliers]).tolist(),
            "stored_at_us": [stored_at_us] * sum(sizes),
            "key": join_texts([columns.keys for columns in outliers], sizes),
            "event_id": join_texts([columns.ids for columns in outliers], sizes),
            "features": list(itertools.chain.from_iterable(features)),
            "trace_id": join_texts([columns.trace_ids for columns in outliers], sizes),
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


def insert_parts(connection: Connection, commits: Sequence[Commit]) -> None:
    """Insert the parts of commits."""
    parts = [(commit, part) for commit in commits for part in commit.parts]
    if not parts:
        return
    insert_columns(
        connection,
        "window_parts",
        {
            "stream_id": [commit.stream_id for commit, _ in parts],
            "source_id": [commit.source_id for commit, _ in parts],
            "window_start_us": [part.window_start_us for _, part in parts],
            "window_end_us": [part.window_end_us for _, part in parts],
            "threshold_id": [part.threshold_id for _, part in parts],
            "events": [part.events for _, part in parts],
            "outliers": [part.outliers for _, part in parts],
            "late": [part.late for _, part in parts],
            "dead": [part.dead for _, part in parts],
            "filtered": [part.filtered for _, part in parts],
            "late_sum_s": [part.late_sum_s for _, part in parts],
            "late_max_s": [part.late_max_s for _, part in parts],
            "payload": [part.payload for _, part in parts],
            "first_offset": [part.first_offset for _, part in parts],
            "last_offset": [part.last_offset for _, part in parts],
            "sample": [part.sample for _, part in parts],
        },
    )


def insert_shadow_parts(connection: Connection, commits: Sequence[Commit]) -> None:
    """Insert the parts of commits for shadow models."""
    parts = [(commit.stream_id, part) for commit in commits for part in commit.shadow_parts]
    if not parts:
        return
    insert_columns(
        connection,
        "shadow_parts",
        {
            "stream_id": [stream_id for stream_id, _ in parts],
            "model_id": [part.model_id for _, part in parts],
            "window_start_us": [part.window_start_us for _, part in parts],
            "window_end_us": [part.window_end_us for _, part in parts],
            "payload": [part.payload for _, part in parts],
            "outliers_of_both": [part.outliers_of_both for _, part in parts],
        },
    )
