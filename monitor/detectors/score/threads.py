"""Control of the threads of torch and numpy, and of the precision of torch's matrix products."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from threadpoolctl import ThreadpoolController


@contextmanager
def single_torch_thread(*, when: bool = True) -> Iterator[None]:
    """Limit torch to a single thread in the context, if `when` is True.

    There are two reasons. A matrix product that is split over another number of threads can differ in the last bit.
    And threads that waited for a busy core made a fit of small networks 60 times slower.
    """
    previous = torch.get_num_threads()
    if not when or previous == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


@contextmanager
def full_precision_matmul() -> Iterator[None]:
    """Compute float32 matrix products in full float32 precision in the context, for any setting of the process.

    `torch.set_float32_matmul_precision("high")` allows TF32 on a GPU, and "medium" allows bfloat16 even on some
    CPUs. Both have about three of float32's seven digits.
    """
    previous = torch.get_float32_matmul_precision()
    if previous == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(previous)


class _SingleBlasThread:
    """Context that limits numpy's matrix products to one thread; it may be entered by several threads.

    The first thread to enter sets the number of BLAS threads, and the last thread to leave restores it. The products
    of a chunk take microseconds. A second thread that waits for a busy core makes them many times slower: 140 times
    at 32 features, 8 components and batches of 256, with five processes on two cores.
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
