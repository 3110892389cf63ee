"""Results that requests share."""

import threading
from concurrent.futures import ThreadPoolExecutor

from monitor.server.kept_results import KeptResults, SharedMoments


def test_the_result_that_was_asked_for_longest_ago_is_dropped() -> None:
    kept: KeptResults[int] = KeptResults(2)
    computed: list[str] = []

    def get(key: str) -> int:
        return kept.get(key, lambda: computed.append(key) or len(computed))

    assert [get(key) for key in ("a", "b", "a", "c", "a", "b")] == [1, 2, 1, 3, 1, 4]
    assert computed == ["a", "b", "c", "b"]


def test_a_moment_is_shared_until_its_end() -> None:
    now_s, computed = [10.0], []
    moments: SharedMoments[int] = SharedMoments(5, 1.0, lambda: now_s[0])

    def compute() -> int:
        computed.append(now_s[0])
        return len(computed)

    found = []
    for now_s[0] in (10.0, 10.9, 11.0, 11.5, 12.5):
        found.append(moments.get("page", compute))
    assert found == [1, 1, 2, 2, 3]
    assert moments.get("other", compute) == 4


def test_requests_at_the_same_time_wait_for_one_computation() -> None:
    entered, goes_on, computed = threading.Event(), threading.Event(), []
    moments: SharedMoments[int] = SharedMoments(5, 60.0)

    def compute() -> int:
        entered.set()
        assert goes_on.wait(20)
        computed.append(1)
        return len(computed)

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(moments.get, "page", compute) for _ in range(4)]
        assert entered.wait(20)
        goes_on.set()
        assert [each.result(20) for each in asked] == [1, 1, 1, 1]
