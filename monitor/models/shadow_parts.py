"""What a batch adds to the windows of models that score in the shadow of the active one. Pure."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from monitor.statistics.part import Scale, encode_part, merge_parts, summarise_windows
from monitor.statistics.part import decode_part as decode_part
from storage.control.shadows import MergedWindow, ScheduledShadow
from storage.ledger.commit import ShadowPartRow

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


def build_shadow_parts(
    features: Float32,
    windows_us: Int64,
    shadows: Sequence[ScheduledShadow],
    *,
    size_us: int,
    energies: Callable[[Float32, int], Float32],
    scale: Callable[[int], Scale],
) -> list[ShadowPartRow]:
    """Return one part for each window touched and each model in the shadow.

    Args:
        features: Of the events that are on time, (n, D).
        windows_us: The start of the window of each.
        shadows: The models in the shadow, which score whole windows only.
        size_us: The length of a window.
        energies: Gives the energies of features under a model.
        scale: Gives the scale of a model's energies.
    """
    rows = []
    for shadow in shadows:
        chosen = windows_us >= shadow.since_us
        if not chosen.any():
            continue
        found = energies(features[chosen], shadow.model_id)
        outlier = found > shadow.threshold
        starts, parts = summarise_windows(found, outlier, windows_us[chosen], scale(shadow.model_id))
        rows += [
            ShadowPartRow(
                model_id=shadow.model_id,
                window_start_us=start,
                window_end_us=start + size_us,
                payload=encode_part(part),
            )
            for start, part in zip(starts.tolist(), parts, strict=True)
        ]
    return rows


def merge_shadow_parts(payloads: Sequence[bytes]) -> MergedWindow:
    """Return what the parts of one window of a model add up to."""
    part = merge_parts([decode_part(payload) for payload in payloads])
    return MergedWindow(events=part.events, outliers=part.outliers, payload=encode_part(part))
