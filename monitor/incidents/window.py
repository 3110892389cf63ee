"""The inputs of every test of a window: the settings, the threshold in force, and the window itself. Pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from config.stream_rules import StreamRules
from config.time_format import format_utc
from monitor.statistics.counts import CountModel, count_model_to_json
from monitor.statistics.part import Part, Scale
from monitor.statistics.season import Season, load_season
from monitor.thresholds.tail_law import TailLaw
from monitor.thresholds.tick import load_clean_rate, load_count_model, load_scale, load_tail_law
from storage.control.records import OffsetRange, WindowFacts
from storage.control.thresholds import ThresholdRow

_MAX_RANGES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdInForce:
    """A threshold row with its count model and the scale of its energies.

    `clean_rate` is the highest rate of outliers that is still clean. `most_events` is the largest number of events of a
    window of the look-back, None before the first tick. `season` is the active season; `season_factor` is its factor in
    the window that the count model and the clean rate apply to, 1 for the mean over all hours. `tail` is the law of the
    largest energies, None without enough energies, and `usual_events` the median number of events of a clean window,
    None before the first tick.
    """

    row: ThresholdRow
    count_model: CountModel
    scale: Scale
    model_version: int
    clean_rate: float
    most_events: int | None
    season: Season | None = None
    season_factor: float = 1.0
    tail: TailLaw | None = None
    usual_events: int | None = None

    @staticmethod
    def from_row(row: ThresholdRow, model_version: int) -> "ThresholdInForce":
        """Return a stored threshold with the count model and the scale from its details."""
        season = load_season(row.details)
        return ThresholdInForce(
            row=row,
            count_model=load_count_model(row.details),
            scale=load_scale(row.details),
            model_version=model_version,
            clean_rate=load_clean_rate(row.details),
            most_events=row.details.get("most_events"),
            season=None if season is None else season.season,
            tail=load_tail_law(row.details),
            usual_events=row.details.get("usual_events"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowUnderTest:
    """A window with its merged part and the threshold that it was scored with.

    `evidence` holds the most anomalous events and the suspect keys of a window that fired, as JSON. `habitual` holds
    the habitual keys that the count model expects in it, None without any.
    """

    facts: WindowFacts
    part: Part
    threshold: ThresholdInForce
    rules: StreamRules
    evidence: Mapping[str, Any] = field(default_factory=dict)
    habitual: Mapping[str, Any] | None = None

    def shared_details(self) -> dict[str, Any]:
        """Return the details that every finding about outliers stores, as JSON."""
        return {
            "law": count_model_to_json(self.threshold.count_model),
            "threshold": threshold_details(self.threshold.row),
            "model_version": self.threshold.model_version,
            "dead_letters": self.part.dead,
            "config_hash": self.rules.config_hash,
            **_season_details(self.threshold),
            **({} if self.habitual is None else {"habitual": dict(self.habitual)}),
            "offsets": [_range_details(offset_range) for offset_range in self.facts.offset_ranges[:_MAX_RANGES]],
            **self.evidence,
        }


def window_details(facts: WindowFacts) -> dict[str, str]:
    """Return the start and end of a window as the JSON object that is stored with incidents."""
    return {"start": format_utc(facts.window_start_us), "end": format_utc(facts.window_end_us)}


def threshold_details(row: ThresholdRow) -> dict[str, Any]:
    """Return a threshold as the JSON object that is stored with incidents."""
    return {
        "value": row.threshold,
        "lower": row.lower,
        "upper": row.upper,
        "n": row.n,
        "percentile": row.percentile,
        "method": row.method,
        "computed_at": format_utc(row.computed_at_us),
        "valid_from": format_utc(row.valid_from_us),
    }


def _season_details(threshold: ThresholdInForce) -> dict[str, Any]:
    if threshold.season is None:
        return {}
    return {"season": {"kind": threshold.season.kind, "factor": threshold.season_factor}}


def _range_details(offset_range: OffsetRange) -> dict[str, Any]:
    return {
        "topic": offset_range.topic,
        "partition": offset_range.partition,
        "first": offset_range.first_offset,
        "last": offset_range.last_offset,
    }
