"""The token bucket: rate, burst and closing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.notify.token_bucket import TokenBucket


def test_a_burst_is_permitted_and_then_the_rate() -> None:
    bucket = TokenBucket(rate_per_s=2.0, burst=3)
    assert [bucket.take(0.0) for _ in range(3)] == [0, 0, 0]
    assert bucket.take(0.0) == pytest.approx(0.5)
    assert bucket.take(0.5) == 0
    assert bucket.take(0.6) == pytest.approx(0.4)


def test_a_closed_bucket_gives_no_token_before_its_time() -> None:
    bucket = TokenBucket(rate_per_s=1.0, burst=2)
    bucket.close(30.0)
    assert bucket.take(0.0) == 30
    assert bucket.take(29.0) == 1
    assert bucket.take(30.0) == 0


@given(st.floats(0.1, 50), st.integers(1, 5), st.lists(st.floats(0, 3), max_size=60))
def test_never_more_than_the_burst_and_the_rate(rate_per_s: float, burst: int, pauses: list[float]) -> None:
    bucket, now_s = TokenBucket(rate_per_s=rate_per_s, burst=burst), 0.0
    for taken, pause_s in enumerate(pauses, start=1):
        now_s += pause_s
        wait_s = bucket.take(now_s)
        if wait_s:
            now_s += wait_s
            assert bucket.take(now_s) == 0, "the wait is long enough"
        assert taken <= burst + now_s * rate_per_s + 1e-6
