"""The quota of dead letters per source, reason and minute.

The first hundred are stored with their payload, the first ten thousand as rows, and the rest as counted ranges, so that
a wrong deployment fills neither the disk nor the table.
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
    """The dead letters that are stored already for one source, reason and minute."""

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
    """Return the rows to store for dead letters.

    Args:
        dead: The dead letters of one source.
        stored: The usage of the current minute, by reason.
    """
    rows = DeadLetterRows(source_offset=[], end_offset=[], count=[], reason=[], detail=[], payload=[])
    used_rows = defaultdict(int, {reason: usage.rows for reason, usage in stored.items()})
    used_payloads = defaultdict(int, {reason: usage.payloads for reason, usage in stored.items()})
    ranges: dict[str, int] = {}
    for offset, end, reason, detail, payload in zip(
        dead.offsets.tolist(),
        dead.end_offsets.tolist(),
        dead.reasons,
        dead.details,
        dead.payloads,
        strict=True,
    ):
        if used_rows[reason] >= ROWS_PER_MINUTE and reason in ranges:
            index = ranges[reason]
            rows.end_offset[index] = end
            rows.count[index] += end - offset
            continue
        over_quota = used_rows[reason] >= ROWS_PER_MINUTE
        if over_quota:
            ranges[reason] = len(rows.count)
        with_payload = payload is not None and not over_quota and used_payloads[reason] < PAYLOADS_PER_MINUTE
        used_rows[reason] += 1
        used_payloads[reason] += with_payload
        rows.source_offset.append(offset)
        rows.end_offset.append(end)
        rows.count.append(end - offset)
        rows.reason.append(reason)
        text = f"a range, after {ROWS_PER_MINUTE} in a minute; its first: {detail}" if over_quota else detail
        rows.detail.append(text[:_DETAIL_CHARACTERS])
        rows.payload.append(payload[:PAYLOAD_BYTES] if with_payload and payload is not None else None)
    return rows
