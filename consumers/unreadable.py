"""Consumers: how far a range of a log reaches that the client cannot read."""

from collections.abc import Callable


def first_readable(is_readable: Callable[[int], bool], begin: int, end: int) -> int:
    """Return the first offset after `begin` from which reading succeeds; `end` where there is none.

    Reading from an offset inside a record batch reads that batch from its start, so offsets of one damaged
    batch fail together. Steps double until one succeeds, then the border is found by halving: a batch of
    n records takes 2 log2(n) attempts, and of several damaged batches in a row few good ones are passed.

    Args:
        is_readable: Tells whether reading from an offset succeeds; expensive.
        begin: An offset from which reading fails.
        end: The end of the log, from which reading succeeds with nothing.
    """
    unreadable, step = begin, 1
    while (probe := unreadable + step) < end and not is_readable(probe):
        unreadable, step = probe, step * 2
    readable = min(probe, end)
    while readable - unreadable > 1:
        middle = (unreadable + readable) // 2
        if is_readable(middle):
            readable = middle
        else:
            unreadable = middle
    return readable
