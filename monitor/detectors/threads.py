"""Detectors: what torch may do in the background: how many threads, and no shortened products."""

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


@contextmanager
def exact_products() -> Iterator[None]:
    """Keep float32 matrix products in float32 inside, whatever the process has asked of torch.

    `torch.set_float32_matmul_precision("high")` lets them run in TF32 on a GPU, and "medium" in bfloat16 even
    on some processors: three digits of seven.
    """
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
