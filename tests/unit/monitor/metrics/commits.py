"""Commits with given numbers of rows."""

from collections.abc import Sequence

import numpy as np

from storage.ledger.commit import (
    Commit,
    DeadLetterColumns,
    OutlierColumns,
    ScoreColumns,
    StreamControl,
    WindowPartRow,
)


def make_commit(
    *, events: int = 0, outliers: int = 0, late: int = 0, dead: Sequence[str] = (), filtered: int = 0
) -> Commit:
    """Return a commit with these numbers of rows."""
    return Commit(
        stream_id=1,
        source_id=1,
        epoch=1,
        begin=0,
        end=events,
        end_cursor=None,
        watermark_us=None,
        assumed_control=StreamControl(sealed_until_us=None, revision=0, last_tick_us=None),
        scores=ScoreColumns(
            offsets=np.arange(events, dtype=np.int64),
            times_us=np.zeros(events, np.int64),
            energies=np.zeros(events, np.float32),
            threshold_ids=np.zeros(events, np.int64),
            late=np.arange(events) < late,
        ),
        outliers=OutlierColumns(
            offsets=np.arange(outliers, dtype=np.int64),
            times_us=np.zeros(outliers, np.int64),
            energies=np.zeros(outliers, np.float32),
            threshold_ids=np.zeros(outliers, np.int64),
            features=[np.zeros(1, np.float32)] * outliers,
            feature_names=("x",),
        ),
        dead=DeadLetterColumns(
            offsets=np.arange(len(dead), dtype=np.int64),
            end_offsets=np.arange(len(dead), dtype=np.int64) + 1,
            reasons=dead,
            details=[""] * len(dead),
            payloads=[None] * len(dead),
        ),
        gap_reason=None,
        parts=[
            WindowPartRow(
                window_start_us=0,
                window_end_us=1,
                threshold_id=1,
                events=events,
                outliers=outliers,
                late=late,
                dead=len(dead),
                payload=None,
                filtered=filtered,
            )
        ],
        ended=False,
    )
