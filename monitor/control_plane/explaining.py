"""Why a window fired, beyond its counts: its strangest events by feature, and the keys that stand out. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monitor.control_plane.lift import lifted_keys
from monitor.findings.lives import when
from storage.evidence import Evidence
from storage.judgements import WindowFacts

Reasons = Sequence[Mapping[str, float | str | None]]
Explain = Callable[[int, Sequence[Mapping[str, float]]], Sequence[Reasons]]
"""Gives, for a model's id and events as features by name, what each feature adds to the energy, costliest first."""

_NAMED_KEYS = 5


def evidence_details(
    facts: WindowFacts, found: Evidence, *, model_id: int, clean_rate: float, explain: Explain | None
) -> dict[str, Any]:
    """Return what was looked up about a window as the JSON that is stored with its transitions."""
    reasons: Sequence[Reasons] = [[] for _ in found.strangest]
    if explain is not None and found.strangest:
        reasons = explain(model_id, [outlier.features for outlier in found.strangest])
    lifts = lifted_keys(
        [(each.key, each.events, each.outliers) for each in found.keys],
        distinct=found.distinct_keys,
        events=sum(part.events for part in facts.parts),
        outliers=sum(part.outliers for part in facts.parts),
        clean_rate=clean_rate,
    )
    return {
        "strangest": [
            {
                "topic": outlier.topic,
                "partition": outlier.partition,
                "offset": outlier.source_offset,
                "time": when(outlier.event_time_us),
                "energy": outlier.energy,
                "key": outlier.key,
                "id": outlier.event_id,
                "reasons": [dict(reason) for reason in why],
            }
            for outlier, why in zip(found.strangest, reasons, strict=True)
        ],
        "keys": [
            {
                "key": lift.key,
                "events": lift.events,
                "outliers": lift.outliers,
                "times_the_others": lift.ratio,
                "p_value": lift.p_value,
            }
            for lift in lifts[:_NAMED_KEYS]
        ],
        "keys_looked_at": found.distinct_keys,
    }
