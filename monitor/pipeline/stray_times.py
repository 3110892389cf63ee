"""Stray future times of events: found by the events that follow, and turned into dead letters. Pure functions."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from config.stream_rules import StreamRules
from consumers.batch import DeadLetters, DecodedBatch, Events
from consumers.windows import find_stray_times


def mask_stray_times(
    events: Events, watermark_us: int | None, rules: StreamRules, *, final: bool
) -> tuple[NDArray[np.bool_], int]:
    """Return a mask of the events with stray future times, and the number of leading events that are decided."""
    if rules.max_future_us is None:
        return np.zeros(len(events), np.bool_), len(events)
    stray, decided = find_stray_times(events.times_us, watermark_us, rules.max_future_us, final=final)
    stray[decided:] = False
    return stray, decided


def reject_stray_times(batch: DecodedBatch, stray: NDArray[np.bool_]) -> DecodedBatch:
    """Turn the events with stray times into dead letters."""
    rows = np.flatnonzero(stray)
    if not len(rows):
        return batch
    rejected = DeadLetters(
        offsets=batch.events.offsets[rows],
        end_offsets=batch.events.offsets[rows] + 1,
        reasons=["future_time"] * len(rows),
        details=[
            f"{_format_seconds(batch.events.times_us[i])} s since 1970; the events after it are earlier" for i in rows
        ],
        payloads=[None] * len(rows),
    )
    dead_letters = _sort_dead_letters(DeadLetters.concat([batch.dead_letters, rejected]))
    return replace(batch, events=batch.events.filter(~stray), dead_letters=dead_letters)


def _format_seconds(time_us: np.int64) -> str:
    return f"{int(time_us) / 1e6:.6f}"


def _sort_dead_letters(dead_letters: DeadLetters) -> DeadLetters:
    order = np.argsort(dead_letters.offsets, kind="stable")
    return DeadLetters(
        offsets=dead_letters.offsets[order],
        end_offsets=dead_letters.end_offsets[order],
        reasons=[dead_letters.reasons[i] for i in order],
        details=[dead_letters.details[i] for i in order],
        payloads=[dead_letters.payloads[i] for i in order],
    )
