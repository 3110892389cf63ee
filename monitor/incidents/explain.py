"""Why a window fired, beyond its counts: its strangest events by feature, and the keys that stand out. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from config.time_format import format_utc
from monitor.incidents.suspect_keys import find_suspect_keys
from storage.control.evidence import Evidence
from storage.control.records import WindowFacts

FeatureReasons = Sequence[Mapping[str, float | str | None]]
ExplainEvents = Callable[[int, Sequence[Mapping[str, float]]], Sequence[FeatureReasons]]
"""Gives, for a model's id and events as features by name, what each feature adds to the energy, costliest first."""

_MAX_KEYS = 5


def build_evidence_details(
    facts: WindowFacts, found: Evidence, *, model_id: int, clean_rate: float, explain: ExplainEvents | None
) -> dict[str, Any]:
    """Return what was looked up about a window as the JSON that is stored with its transitions."""
    reasons: Sequence[FeatureReasons] = [[] for _ in found.top_outliers]
    if explain is not None and found.top_outliers:
        reasons = explain(model_id, [outlier.features for outlier in found.top_outliers])
    lifts = find_suspect_keys(
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
                "time": format_utc(outlier.event_time_us),
                "energy": outlier.energy,
                "key": outlier.key,
                "id": outlier.event_id,
                "reasons": [dict(reason) for reason in why],
            }
            for outlier, why in zip(found.top_outliers, reasons, strict=True)
        ],
        "keys": [
            {
                "key": lift.key,
                "events": lift.events,
                "outliers": lift.outliers,
                "times_the_others": lift.ratio,
                "p_value": lift.p_value,
            }
            for lift in lifts[:_MAX_KEYS]
        ],
        "keys_looked_at": found.distinct_keys,
    }
