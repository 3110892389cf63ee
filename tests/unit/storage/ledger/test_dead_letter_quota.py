"""The quota of dead letters per minute."""

from collections.abc import Sequence

import numpy as np
import pytest

from storage.ledger.commit import DeadLetterColumns
from storage.ledger.dead_letter_quota import (
    PAYLOAD_BYTES,
    PAYLOADS_PER_MINUTE,
    ROWS_PER_MINUTE,
    DeadLetterUsage,
    apply_dead_letter_quota,
)


def _dead_letters(reasons: Sequence[str], payload: bytes | None = b"payload") -> DeadLetterColumns:
    offsets = np.arange(len(reasons))
    return DeadLetterColumns(
        offsets=offsets,
        end_offsets=offsets + 1,
        reasons=reasons,
        details=[f"at {offset}" for offset in offsets],
        payloads=[payload] * len(reasons),
    )


def test_first_hundred_of_each_reason_have_their_payload() -> None:
    rows = apply_dead_letter_quota(_dead_letters(["a", "b"] * 150), {})
    with_payload = [reason for reason, payload in zip(rows.reason, rows.payload, strict=True) if payload is not None]
    assert with_payload.count("a") == with_payload.count("b") == PAYLOADS_PER_MINUTE
    assert len(rows.count) == 300


def test_stored_payloads_of_the_minute_count_towards_the_quota() -> None:
    rows = apply_dead_letter_quota(_dead_letters(["a"] * 10), {"a": DeadLetterUsage(rows=98, payloads=98)})
    assert [payload is not None for payload in rows.payload] == [True] * 2 + [False] * 8


def test_dead_letters_without_payload_do_not_use_the_payload_quota() -> None:
    rows = apply_dead_letter_quota(
        _dead_letters(["a"] * 5, payload=None), {"a": DeadLetterUsage(rows=200, payloads=99)}
    )
    assert rows.payload == [None] * 5
    assert apply_dead_letter_quota(_dead_letters(["a"]), {"a": DeadLetterUsage(rows=205, payloads=99)}).payload == [
        b"payload"
    ]


def test_dead_letters_over_the_row_quota_become_one_counted_range() -> None:
    rows = apply_dead_letter_quota(
        _dead_letters(["a"] * 10), {"a": DeadLetterUsage(rows=ROWS_PER_MINUTE - 3, payloads=100)}
    )
    assert rows.count == [1, 1, 1, 7]
    assert (rows.source_offset[-1], rows.end_offset[-1]) == (3, 10)
    assert rows.payload[-1] is None
    assert "at 3" in (rows.detail[-1] or "")


@pytest.mark.parametrize("stored", [0, ROWS_PER_MINUTE - 1, ROWS_PER_MINUTE, ROWS_PER_MINUTE + 5])
def test_every_dead_letter_is_counted_once(stored: int) -> None:
    rows = apply_dead_letter_quota(
        _dead_letters(["a", "b", "a", "a", "b"]), {"a": DeadLetterUsage(rows=stored, payloads=0)}
    )
    by_reason = {
        reason: sum(n for n, each in zip(rows.count, rows.reason, strict=True) if each == reason)
        for reason in ("a", "b")
    }
    assert by_reason == {"a": 3, "b": 2}


def test_unreadable_range_counts_its_length() -> None:
    dead = DeadLetterColumns(
        offsets=np.array([5]),
        end_offsets=np.array([25]),
        reasons=["unreadable_batch"],
        details=["bad CRC"],
        payloads=[None],
    )
    rows = apply_dead_letter_quota(dead, {})
    assert (rows.source_offset, rows.end_offset, rows.count) == ([5], [25], [20])


def test_payload_is_cut_to_four_kibibytes() -> None:
    (payload,) = apply_dead_letter_quota(_dead_letters(["a"], payload=b"x" * 10_000), {}).payload
    assert payload == b"x" * PAYLOAD_BYTES
    assert PAYLOAD_BYTES == 4096
