"""Evidence for a window that fired: its most anomalous events by feature, and its suspect keys. Pure functions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from config.time_format import format_utc
from monitor.incidents.suspect_keys import find_suspect_keys
from storage.control.evidence import Evidence
from storage.control.records import WindowFacts

FeatureReasons = Sequence[Mapping[str, Any]]
ExplainEvents = Callable[[int, Sequence[Mapping[str, float]]], Sequence[FeatureReasons]]
"""Function of a model id and of events as features by name.

It returns the features of each event with their contributions to its energy, the largest line of features first.
"""

_MAX_KEYS = 5


def build_evidence_details(
    facts: WindowFacts, evidence: Evidence, *, model_id: int, clean_rate: float, explain: ExplainEvents | None
) -> dict[str, Any]:
    """Return the evidence of a window as the JSON object that is stored with its transitions."""
    reasons: Sequence[FeatureReasons] = [[] for _ in evidence.top_outliers]
    if explain is not None and evidence.top_outliers:
        reasons = explain(model_id, [outlier.features for outlier in evidence.top_outliers])
    suspects = find_suspect_keys(
        [(each.key, each.events, each.outliers) for each in evidence.keys],
        distinct=evidence.distinct_keys,
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
                "reasons": [dict(reason) for reason in event_reasons],
            }
            for outlier, event_reasons in zip(evidence.top_outliers, reasons, strict=True)
        ],
        "keys": [
            {
                "key": suspect.key,
                "events": suspect.events,
                "outliers": suspect.outliers,
                "times_the_others": suspect.ratio,
                "p_value": suspect.p_value,
            }
            for suspect in suspects[:_MAX_KEYS]
        ],
        "keys_looked_at": evidence.distinct_keys,
    }
