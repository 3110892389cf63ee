"""Detectors: one thread where more would cost speed or repeatability."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread(*, when: bool = True) -> Iterator[None]:
    """Let torch use a single thread inside, if `when`.

    Two reasons: a matrix product split over another number of threads can differ in the last bit, and
    threads that wait for a busy core made a fit of small networks 60 times slower.
    """
    before = torch.get_num_threads()
    if not when or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
