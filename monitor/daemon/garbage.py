"""Garbage collection of a long-running daemon: rare, short, and never over the objects of the start."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

COLLECT_INTERVAL_S = 10.0
_THRESHOLDS = (50_000, 50, 1_000)
"""Allocations before a collection of the youngest objects, and collections before one of the next older generation.

The objects of a batch are freed by their reference counts: collections find only the few in cycles, such as tracebacks.
"""


@contextmanager
def tuned_garbage_collection() -> Iterator[None]:
    """Exclude all objects of the start from later collections, once, and collect rarely during the block.

    The imported modules are 280,000 objects that live until the end: a full collection over them takes a third of a
    second, in which no thread runs. Later objects are not frozen: the garbage among them would stay until the end.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def collect_young_garbage() -> None:
    """Collect the younger two generations, for a job on the wall clock."""
    gc.collect(1)
