"""The search for the end of an unreadable range with few reads."""

from hypothesis import given
from hypothesis import strategies as st

from consumers.kafka.unreadable import find_first_readable


@given(begin=st.integers(0, 10_000), length=st.integers(1, 50_000), rest=st.integers(0, 10_000))
def test_end_of_one_damaged_batch_is_found_exactly(begin: int, length: int, rest: int) -> None:
    reads = 0

    def is_readable(offset: int) -> bool:
        nonlocal reads
        reads += 1
        return offset >= begin + length

    assert find_first_readable(is_readable, begin, begin + length + rest) == begin + length
    assert reads <= 2 * length.bit_length() + 2


@given(damaged=st.sets(st.integers(0, 200), min_size=1))
def test_range_ends_at_a_readable_offset(damaged: set[int]) -> None:
    begin, end = min(damaged), 201
    found = find_first_readable(lambda offset: offset not in damaged, begin, end)
    assert begin < found <= end
    assert found == end or found not in damaged
    assert found - 1 in damaged


def test_log_damaged_to_its_end_is_unreadable_to_its_end() -> None:
    assert find_first_readable(lambda _: False, 7, 1_000) == 1_000
