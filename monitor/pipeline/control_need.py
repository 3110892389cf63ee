"""When a worker needs a step of the control plane: what its stored commits may have made due. Pure decisions.

A step reads the state of the whole stream, so a step after each commit would cost more than many commits. Commits make
a step due only when all sources have passed the end of a window, or when the outliers of the open window may open an
incident early. All else becomes due by time: the control plane runs once a second without any need.
"""

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from consumers.window_schedule import WindowSchedule
from monitor.pipeline.partition_buffer import BufferState, PartitionBuffer
from storage.ledger.commit import StreamControl, WindowPartRow


class ControlNeed(enum.Enum):
    """How soon a step of the control plane is needed."""

    NONE = enum.auto()
    SOON = enum.auto()
    """A few times a second are enough."""
    NOW = enum.auto()
    """Nothing can be committed before the step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownProgress:
    """The progress of a stream as the worker of one process knows it.

    Attributes:
        passed_us: End of the last window that all sources have passed by their stored watermarks, those left out that
            are idle or ended. None if a source has no watermark, or if all are left out.
        is_blocked: The lead holds the records of all of these sources back.
        n_ended: Number of sources whose end is stored.
        open_outliers: Outliers that this process has committed to windows that are not sealed, by the window's start.
    """

    passed_us: int | None = None
    is_blocked: bool = False
    n_ended: int = 0
    open_outliers: Mapping[int, int] = field(default_factory=dict)


def advance_progress(
    progress: KnownProgress,
    buffers: Iterable[PartitionBuffer],
    parts: Iterable[WindowPartRow],
    control: StreamControl,
    windows: WindowSchedule,
) -> KnownProgress:
    """Return the progress after commits.

    Args:
        progress: The progress before them.
        buffers: The buffers of all claimed sources, after the commits.
        parts: The parts that the commits stored.
        control: The stream's state as last read.
        windows: The windows of the stream.
    """
    known = list(buffers)
    waiting = [buffer for buffer in known if not (buffer.idle or buffer.ended)]
    watermarks_us = [buffer.watermark_us for buffer in waiting if buffer.watermark_us is not None]
    has_passed = bool(waiting) and len(watermarks_us) == len(waiting)
    sealed_us = control.sealed_until_us
    outliers = {start: n for start, n in progress.open_outliers.items() if sealed_us is None or start >= sealed_us}
    for part in parts:
        if part.outliers and (sealed_us is None or part.window_start_us >= sealed_us):
            outliers[part.window_start_us] = outliers.get(part.window_start_us, 0) + part.outliers
    return KnownProgress(
        passed_us=windows.passed_us(min(watermarks_us)) if has_passed else None,
        is_blocked=bool(waiting) and all(buffer.state is BufferState.HELD_BY_LEAD for buffer in waiting),
        n_ended=sum(buffer.end_stored for buffer in known),
        open_outliers=outliers,
    )


def find_need(before: KnownProgress, after: KnownProgress, control: StreamControl) -> ControlNeed:
    """Return how soon a step of the control plane is needed after commits.

    Args:
        before: The progress at the last need.
        after: The progress after the commits.
        control: The stream's state as last read.
    """
    if after.n_ended > before.n_ended:
        return ControlNeed.NOW
    if after.passed_us is not None and (before.passed_us is None or after.passed_us > before.passed_us):
        return ControlNeed.NOW if after.is_blocked else ControlNeed.SOON
    if control.sealed_until_us is not None:
        n = after.open_outliers.get(control.sealed_until_us, 0)
        if n > before.open_outliers.get(control.sealed_until_us, 0):
            return ControlNeed.SOON
    return ControlNeed.NONE
