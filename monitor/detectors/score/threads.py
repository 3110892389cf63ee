"""Detectors: what torch and numpy may do in the background: how many threads, and no shortened products."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from threadpoolctl import ThreadpoolController


@contextmanager
def single_torch_thread(*, when: bool = True) -> Iterator[None]:
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
def full_precision_matmul() -> Iterator[None]:
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


class _SingleBlasThread:
    """Keeps numpy's matrix products on one thread while anybody is inside; the last to leave puts back what was.

    The products of a chunk take microseconds, and a second thread that waits for a busy core makes them many
    times slower: 140 times at 32 features, 8 components and batches of 256, with five processes on two cores.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._libraries: list[Any] | None = None
        self._inside = 0
        self._before: list[tuple[Any, int]] = []

    def __enter__(self) -> None:
        with self._lock:
            if self._libraries is None:
                self._libraries = ThreadpoolController().select(user_api="blas").lib_controllers
            if self._inside == 0:
                threads = [(library, library.get_num_threads()) for library in self._libraries]
                self._before = [(library, count) for library, count in threads if count > 1]
                for library, _ in self._before:
                    library.set_num_threads(1)
            self._inside += 1

    def __exit__(self, *reason: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for library, count in self._before:
                    library.set_num_threads(count)


single_blas_thread = _SingleBlasThread()
