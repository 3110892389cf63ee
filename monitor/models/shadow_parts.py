"""Parts of windows scored by shadow models. Pure functions."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from consumers.window_schedule import WindowSchedule
from monitor.statistics.part import Scale, merge_parts, summarise_windows
from monitor.statistics.part_codec import decode_part, encode_part, encode_windows
from monitor.statistics.training_profile import Floats
from storage.control.shadows import MergedWindow, ScheduledShadow
from storage.ledger.commit import ShadowPartRow

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]


def build_shadow_parts(
    features: Floats,
    times_us: Int64,
    shadows: Sequence[ScheduledShadow],
    windows: WindowSchedule,
    *,
    energies: Callable[[Floats, int], Float32],
    scale: Callable[[int], Scale],
    is_outlier: NDArray[np.bool_],
) -> list[ShadowPartRow]:
    """Build one part for each window of the batch and each shadow model.

    Args:
        features: The features of the events that are not late, (n, D).
        times_us: The time of each event, (n,).
        shadows: The shadow models; each scores only windows that begin at or after its start.
        windows: The windows of the stream.
        energies: Returns the energies of features under a model.
        scale: Returns the scale of a model's energies.
        is_outlier: Whether the active model flags the event, (n,).
    """
    rows = []
    starts_us = windows.starts(times_us)
    for shadow in shadows:
        selected = starts_us >= shadow.since_us
        if not selected.any():
            continue
        shadow_energies = energies(features[selected], shadow.model_id)
        is_shadow_outlier = shadow_energies > shadow.threshold
        starts, index = np.unique(starts_us[selected], return_inverse=True)
        parts = summarise_windows(shadow_energies, is_shadow_outlier, index, len(starts), scale(shadow.model_id))
        both = np.bincount(index[is_shadow_outlier & is_outlier[selected]], minlength=len(starts))
        rows += [
            ShadowPartRow(
                model_id=shadow.model_id,
                window_start_us=start,
                window_end_us=end,
                payload=payload,
                outliers_of_both=outliers_of_both,
            )
            for start, end, payload, outliers_of_both in zip(
                starts.tolist(), windows.ends(starts).tolist(), encode_windows(parts), both.tolist(), strict=True
            )
        ]
    return rows


def merge_shadow_parts(payloads: Sequence[bytes]) -> MergedWindow:
    """Merge the parts of one window of a model."""
    part = merge_parts([decode_part(payload) for payload in payloads])
    return MergedWindow(events=part.events, outliers=part.outliers, payload=encode_part(part))
