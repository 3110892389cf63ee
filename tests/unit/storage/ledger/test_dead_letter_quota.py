"""How much of a flood of dead letters is kept."""

from collections.abc import Sequence

import numpy as np
import pytest

from storage.ledger import dead_letter_quota as letters
from storage.ledger.commit import DeadLetterColumns
from storage.ledger.dead_letter_quota import (
    PAYLOAD_BYTES,
    PAYLOADS_PER_MINUTE,
    ROWS_PER_MINUTE,
    DeadLetterUsage,
    apply_dead_letter_quota,
)


def _dead(reasons: Sequence[str], payload: bytes | None = b"payload") -> DeadLetterColumns:
    offsets = np.arange(len(reasons))
    return DeadLetterColumns(
        offsets=offsets,
        end_offsets=offsets + 1,
        reasons=reasons,
        details=[f"at {offset}" for offset in offsets],
        payloads=[payload] * len(reasons),
    )


def test_the_first_hundred_of_each_reason_keep_their_payload() -> None:
    rows = apply_dead_letter_quota(_dead(["a", "b"] * 150), {})
    kept = [reason for reason, payload in zip(rows.reason, rows.payload, strict=True) if payload is not None]
    assert kept.count("a") == kept.count("b") == PAYLOADS_PER_MINUTE
    assert len(rows.count) == 300


def test_payloads_that_the_minute_holds_already_are_counted() -> None:
    rows = apply_dead_letter_quota(_dead(["a"] * 10), {"a": DeadLetterUsage(rows=98, payloads=98)})
    assert [payload is not None for payload in rows.payload] == [True] * 2 + [False] * 8


def test_letters_without_payload_do_not_use_up_the_payloads() -> None:
    rows = apply_dead_letter_quota(_dead(["a"] * 5, payload=None), {"a": DeadLetterUsage(rows=200, payloads=99)})
    assert rows.payload == [None] * 5
    assert apply_dead_letter_quota(_dead(["a"]), {"a": DeadLetterUsage(rows=205, payloads=99)}).payload == [b"payload"]


def test_beyond_the_rows_of_a_minute_the_rest_of_a_commit_is_one_counted_range() -> None:
    rows = apply_dead_letter_quota(_dead(["a"] * 10), {"a": DeadLetterUsage(rows=ROWS_PER_MINUTE - 3, payloads=100)})
    assert rows.count == [1, 1, 1, 7]
    assert (rows.source_offset[-1], rows.end_offset[-1]) == (3, 10)
    assert rows.payload[-1] is None
    assert "at 3" in (rows.detail[-1] or "")


@pytest.mark.parametrize("stored", [0, ROWS_PER_MINUTE - 1, ROWS_PER_MINUTE, ROWS_PER_MINUTE + 5])
def test_every_letter_is_counted_once(stored: int) -> None:
    rows = apply_dead_letter_quota(_dead(["a", "b", "a", "a", "b"]), {"a": DeadLetterUsage(rows=stored, payloads=0)})
    by_reason = {
        reason: sum(n for n, each in zip(rows.count, rows.reason, strict=True) if each == reason)
        for reason in ("a", "b")
    }
    assert by_reason == {"a": 3, "b": 2}


def test_a_range_that_nobody_could_read_counts_its_length() -> None:
    dead = DeadLetterColumns(
        offsets=np.array([5]),
        end_offsets=np.array([25]),
        reasons=["unreadable_batch"],
        details=["bad CRC"],
        payloads=[None],
    )
    rows = apply_dead_letter_quota(dead, {})
    assert (rows.source_offset, rows.end_offset, rows.count) == ([5], [25], [20])


def test_a_payload_is_cut_to_four_kibibytes() -> None:
    (payload,) = apply_dead_letter_quota(_dead(["a"], payload=b"x" * 10_000), {}).payload
    assert payload == b"x" * PAYLOAD_BYTES
    assert letters.PAYLOAD_BYTES == 4096
