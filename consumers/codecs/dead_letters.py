"""Consumers: why a record cannot become an event, and the dead letters that come of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import msgspec
import numpy as np

from consumers.batch import DeadLetters, RawBatch, Table
from consumers.codecs.text import MAX_DETAIL_CHARS, clean_text, scalar_text

MAX_PAYLOAD_BYTES = 4_096


class DeadLetterReason(StrEnum):
    """The reasons that people find in dead_letter_history."""

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


class RejectedRecord(Exception):  # noqa: N818 - a verdict on one record, caught by its codec, never an error
    """One record is refused; raised and caught inside a codec only."""

    def __init__(self, reason: DeadLetterReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(slots=True, kw_only=True)
class DeadLetterBuilder:
    """The refused rows of one raw batch, gathered in any order."""

    rows: list[tuple[int, DeadLetterReason, str]] = field(default_factory=list)

    def add(self, row: int, reason: DeadLetterReason, detail: str) -> None:
        """Refuse a row of the batch."""
        self.rows.append((row, reason, detail))

    def build(self, raw: RawBatch) -> DeadLetters:
        """Return the dead letters in the order of their offsets; an unreadable batch is one, as a range."""
        if raw.skip_reason == DeadLetterReason.UNREADABLE_BATCH and raw.end > raw.begin:
            return DeadLetters(
                offsets=np.array([raw.begin], np.int64),
                end_offsets=np.array([raw.end], np.int64),
                reasons=[DeadLetterReason.UNREADABLE_BATCH.value],
                details=[f"offsets {raw.begin} to {raw.end - 1} of {raw.partition} could not be read"],
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


def _stored_payload(raw: RawBatch, row: int) -> bytes | None:
    """Return the first bytes of the record as it came; a row of columns is written as JSON."""
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
