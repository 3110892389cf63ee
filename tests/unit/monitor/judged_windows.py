"""A stream whose windows are judged one after the other, with its state stored as JSON in between."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from config.stream_rules import StreamRules
from monitor.control_plane.judge import judge_open_window, judge_window
from monitor.incidents.habitual_keys import KeyCounts
from monitor.incidents.window import ThresholdInForce
from monitor.statistics.part import Scale, summarise
from monitor.statistics.part_codec import encode_part
from storage.control.evidence import WindowKeys
from storage.control.records import Incident, Judgement, StoredPart, WindowFacts
from storage.control.thresholds import ThresholdRow
from tests.rules import make_rules

MINUTE = 60_000_000
T0 = 1_767_225_600_000_000
EVENTS = 1_000
SCALE = Scale(median=8.0, iqr=4.0)
RULES = make_rules(
    config_hash="hash",
    size_us=MINUTE,
    per_week=1.0,
    min_outliers=5,
    min_ratio=0.0,
    max_dead_letter_ratio=0.05,
    resolve_after=3,
    repeat_interval_us=240 * MINUTE,
    channels=lambda kind, severity: [severity],
    max_age_us=2**62,
)


def learned_threshold(
    *, model_id: int = 1, windows: int = 1440, rate: float = 0.005, most_events: int | None = EVENTS
) -> ThresholdInForce:
    """Return a learned threshold for one-minute windows with five outliers each."""
    law = {"rate": rate, "calibration_n": 1_440_000, "dispersion": 1.0, "windows": windows, "state": "learned"}
    details: dict[str, Any] = {
        "law": law,
        "scale": {"median": SCALE.median, "iqr": SCALE.iqr},
        "limit": {},
        "clean_rate": rate * 1.02,
        "most_events": most_events,
    }
    row = ThresholdRow(
        id=7,
        model_id=model_id,
        computed_at_us=0,
        valid_from_us=0,
        percentile=99.5,
        threshold=50.0,
        lower=49.0,
        upper=51.0,
        n=1_440_000,
        method="plain",
        details=details,
    )
    return ThresholdInForce.from_row(row, model_version=2)


def to_keys(keys: KeyCounts | WindowKeys | None, outliers: int) -> WindowKeys | None:
    """Return the keys of a window; those given as counts have outliers of 90 nats."""
    if keys is None or isinstance(keys, WindowKeys):
        return keys
    is_more = outliers > sum(x for _, x in keys.values())
    largest = {key: 90.0 for key, (_, x) in keys.items() if x}
    return WindowKeys(counts=keys, largest=largest, largest_of_others=90.0 if is_more else None)


@dataclass
class Stream:
    """A stream with its open incidents, its stored state and the transitions so far."""

    threshold: ThresholdInForce = field(default_factory=learned_threshold)
    open_incidents: dict[int, Incident] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    transitions: list[tuple[int, str, str]] = field(default_factory=list)
    window: int = 0
    ids: int = 0
    rules: StreamRules = RULES

    def facts(self, outliers: int, events: int = EVENTS) -> WindowFacts:
        energies = np.full(events, 8.0, np.float32)
        energies[:outliers] = 90.0
        part = summarise(energies, energies > 50, SCALE)
        stored = StoredPart(threshold_id=7, events=events, outliers=outliers, late=0, dead=0, payload=encode_part(part))
        return WindowFacts(
            window_start_us=T0 + self.window * MINUTE,
            window_end_us=T0 + (self.window + 1) * MINUTE,
            parts=[stored],
            last_judged_end_us=T0 + self.window * MINUTE,
            open_incidents=list(self.open_incidents.values()),
            gaps=[],
            state=json.loads(json.dumps(self.state)),
        )

    def judge_early(
        self, outliers: int, events: int = EVENTS, keys: KeyCounts | WindowKeys | None = None
    ) -> list[Incident]:
        """Test the next window while it is open, and store the opened incidents."""
        rows = judge_open_window(
            self.facts(outliers, events), lambda _: self.threshold, self.rules, T0, keys=to_keys(keys, outliers)
        )
        self._store(rows)
        return rows

    def judge(self, outliers: int, events: int = EVENTS, keys: KeyCounts | WindowKeys | None = None) -> Judgement:
        """Judge the next window."""
        counted = to_keys(keys, outliers)
        judgement = judge_window(self.facts(outliers, events), lambda _: self.threshold, self.rules, T0, keys=counted)
        self._store(judgement.incidents)
        assert judgement.state is not None
        self.state = dict(judgement.state)
        self.window += 1
        return judgement

    def run(self, counts: list[int]) -> list[Judgement]:
        return [self.judge(count) for count in counts]

    def _store(self, rows: Any) -> None:
        for row in rows:
            self.ids += row.id is None
            number = row.id or self.ids
            if row.transition is not None:
                self.transitions.append((self.window, row.kind, row.transition.type))
            if row.status == "open":
                self.open_incidents[number] = row.with_id(number)
            else:
                del self.open_incidents[number]

    @property
    def kinds(self) -> set[str]:
        """Return the kinds of the open incidents."""
        return {each.kind for each in self.open_incidents.values()}


def threshold_of_model(model_id: int) -> ThresholdInForce:
    return replace(learned_threshold(model_id=model_id))
