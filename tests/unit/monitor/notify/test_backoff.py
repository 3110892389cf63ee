"""The delay before the next attempt, as a function of the message id, the attempt and the clock."""

import itertools

import pytest

from monitor.notify.backoff import backoff_us, next_attempt_us

SECOND = 1_000_000
HOUR = 3_600 * SECOND
CREATED = 1_000 * HOUR


def next_attempt(attempt: int = 1, *, age_us: int = 0, wait_us: int | None = None, message_id: str = "a") -> int | None:
    return next_attempt_us(
        message_id, attempt, now_us=CREATED + age_us, created_at_us=CREATED, deadline_us=24 * HOUR, wait_us=wait_us
    )


@pytest.mark.parametrize(("attempt", "full_s"), [(1, 2), (2, 4), (5, 32), (9, 512), (10, 600), (1_000_000, 600)])
def test_delay_doubles_up_to_ten_minutes_and_half_of_it_is_jitter(attempt: int, full_s: int) -> None:
    waits = [backoff_us(str(n), attempt) for n in range(500)]
    assert full_s / 2 * SECOND <= min(waits) < 0.55 * full_s * SECOND
    assert 0.95 * full_s * SECOND < max(waits) <= full_s * SECOND


def test_jitter_depends_only_on_the_id_and_the_attempt() -> None:
    assert backoff_us("a", 3) == backoff_us("a", 3)
    assert len({backoff_us("a", 12), backoff_us("a", 13), backoff_us("b", 12)}) == 3


def test_receiver_may_request_a_longer_delay_but_not_a_shorter_one() -> None:
    assert next_attempt(wait_us=90 * SECOND) == CREATED + 90 * SECOND
    assert next_attempt(wait_us=0) == next_attempt()


def test_last_attempt_is_at_the_deadline_for_any_requested_delay() -> None:
    assert next_attempt(wait_us=48 * HOUR) == CREATED + 24 * HOUR
    assert next_attempt(12, age_us=24 * HOUR - 1) == CREATED + 24 * HOUR


@pytest.mark.parametrize("age_h", [24, 25])
def test_message_is_given_up_after_the_deadline(age_h: int) -> None:
    assert next_attempt(age_us=age_h * HOUR) is None


def test_unreachable_endpoint_is_tried_150_to_300_times_a_day() -> None:
    now_us, attempts = CREATED, 0
    for attempt in itertools.count(1):
        attempts = attempt
        at_us = next_attempt(attempt, age_us=now_us - CREATED)
        if at_us is None:
            break
        now_us = at_us
    assert 150 < attempts < 300
    assert now_us == CREATED + 24 * HOUR
