"""Storage room: how much of a flood of dead letters is kept.

Per source, reason and minute: the first hundred whole, the first ten thousand as rows, the rest as counted
ranges, so that a wrong deployment fills neither the disk nor the table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from storage.ledger.commit import DeadLetterColumns

PAYLOADS_PER_MINUTE = 100
ROWS_PER_MINUTE = 10_000
PAYLOAD_BYTES = 4096
_DETAIL_CHARACTERS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterUsage:
    """What this minute holds already for one source and reason."""

    rows: int = 0
    payloads: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterRows:
    """Rows of `dead_letters` as columns."""

    source_offset: list[int]
    end_offset: list[int]
    count: list[int]
    reason: list[str]
    detail: list[str | None]
    payload: list[bytes | None]


def apply_dead_letter_quota(dead: DeadLetterColumns, stored: Mapping[str, DeadLetterUsage]) -> DeadLetterRows:
    """Return the rows to store for these dead letters, given what the minute holds already by reason."""
    rows = DeadLetterRows(source_offset=[], end_offset=[], count=[], reason=[], detail=[], payload=[])
    kept_rows = defaultdict(int, {reason: each.rows for reason, each in stored.items()})
    kept_payloads = defaultdict(int, {reason: each.payloads for reason, each in stored.items()})
    ranges: dict[str, int] = {}
    for offset, end, reason, detail, payload in zip(
        dead.offsets.tolist(),
        dead.end_offsets.tolist(),
        dead.reasons,
        dead.details,
        dead.payloads,
        strict=True,
    ):
        if kept_rows[reason] >= ROWS_PER_MINUTE and reason in ranges:
            place = ranges[reason]
            rows.end_offset[place] = end
            rows.count[place] += end - offset
            continue
        beyond = kept_rows[reason] >= ROWS_PER_MINUTE
        if beyond:
            ranges[reason] = len(rows.count)
        whole = payload is not None and not beyond and kept_payloads[reason] < PAYLOADS_PER_MINUTE
        kept_rows[reason] += 1
        kept_payloads[reason] += whole
        rows.source_offset.append(offset)
        rows.end_offset.append(end)
        rows.count.append(end - offset)
        rows.reason.append(reason)
        said = f"a range, after {ROWS_PER_MINUTE} in a minute; its first: {detail}" if beyond else detail
        rows.detail.append(said[:_DETAIL_CHARACTERS])
        rows.payload.append(payload[:PAYLOAD_BYTES] if whole and payload is not None else None)
    return rows
