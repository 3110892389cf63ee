"""Reasons for rejecting a record, and the construction of dead letters."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import msgspec
import numpy as np

from consumers.batch import RawBatch, Table
from consumers.codecs.text import MAX_DETAIL_CHARS, clean_text, scalar_text
from consumers.decoded_batch import DeadLetters

MAX_PAYLOAD_BYTES = 4_096


class DeadLetterReason(StrEnum):
    """The reasons in the view dead_letter_history."""

    NOT_JSON = "not_json"
    NOT_MSGPACK = "not_msgpack"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FEATURE = "missing_feature"
    NOT_A_NUMBER = "not_a_number"
    NOT_FINITE = "not_finite"
    WRONG_LENGTH = "wrong_length"
    NO_TIME = "no_time"
    BAD_TIME = "bad_time"
    FUTURE_TIME = "future_time"
    TOO_LARGE = "too_large"
    EMPTY = "empty"
    SCHEMA_REGISTRY_FRAMING = "schema_registry_framing"
    UNREADABLE_BATCH = "unreadable_batch"


class RejectedRecord(Exception):  # noqa: N818 - control flow inside a codec, not an error for callers
    """A record is rejected. Raised and caught only inside a codec."""

    def __init__(self, reason: DeadLetterReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(slots=True, kw_only=True)
class DeadLetterBuilder:
    """The rejected rows of one raw batch, collected in any order."""

    rows: list[tuple[int, DeadLetterReason, str]] = field(default_factory=list)

    def add(self, row: int, reason: DeadLetterReason, detail: str) -> None:
        """Reject a row of the batch."""
        self.rows.append((row, reason, detail))

    def build(self, raw: RawBatch) -> DeadLetters:
        """Build the dead letters in order of offset. An unreadable batch is one dead letter for its range."""
        if raw.skip_reason == DeadLetterReason.UNREADABLE_BATCH and raw.end > raw.begin:
            return DeadLetters(
                offsets=np.array([raw.begin], np.int64),
                end_offsets=np.array([raw.end], np.int64),
                reasons=[DeadLetterReason.UNREADABLE_BATCH.value],
                details=[_describe_range(raw)],
                payloads=[None],
            )
        if not self.rows:
            return DeadLetters.empty()
        self.rows.sort(key=lambda row: row[0])
        offsets = raw.offsets[[row for row, _, _ in self.rows]]
        return DeadLetters(
            offsets=offsets,
            end_offsets=offsets + 1,
            reasons=[reason.value for _, reason, _ in self.rows],
            details=[clean_text(detail, MAX_DETAIL_CHARS) for _, _, detail in self.rows],
            payloads=[_stored_payload(raw, row) for row, _, _ in self.rows],
        )


def _describe_range(raw: RawBatch) -> str:
    reason = "" if raw.skip_detail is None else f": {raw.skip_detail}"
    text = f"offsets {raw.begin} to {raw.end - 1} of {raw.partition} could not be read{reason}"
    return clean_text(text, MAX_DETAIL_CHARS)


def _stored_payload(raw: RawBatch, row: int) -> bytes | None:
    """Return the first bytes of the original record. A row without original bytes is encoded as JSON."""
    if not isinstance(raw.values, Table):
        value = raw.values[row]
        return None if value is None else bytes(value[:MAX_PAYLOAD_BYTES])
    if raw.values.row_bytes is not None:
        line = raw.values.row_bytes[row]
        return None if line is None else line[:MAX_PAYLOAD_BYTES]
    cells = {name: _plain_value(column[row]) for name, column in raw.values.columns.items()}
    return msgspec.json.encode(cells)[:MAX_PAYLOAD_BYTES]


def _plain_value(cell: object) -> object:
    value = cell.item() if isinstance(cell, np.generic) else cell
    if value is None or isinstance(value, bool | float):
        return value
    text = scalar_text(value)
    return clean_text(str(value) if text is None else text, MAX_PAYLOAD_BYTES)
