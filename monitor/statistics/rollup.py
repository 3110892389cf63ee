"""Sums over the windows of an interval, which merge exactly. Pure functions.

Merging adds integers, merges the statistics of events (`monitor.statistics.part`) and adds the expected outliers as
multiples of 2^-20, which float64 adds without rounding. So the sums over an interval are the same, to the bit, from its
windows in any order and from the sums over parts of the interval.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from monitor.statistics.part import Part, Scale, merge_parts
from monitor.statistics.part_codec import decode_part
from monitor.statistics.sketch import summarise_energies
from storage.control.rollups import RolledWindow, RollupRow

_EXPECTED_UNIT = 2.0**-20


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredBy:
    """The model of a threshold row: its id and version, and the scale of its energies."""

    model_id: int
    version: int
    scale: Scale


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RollupSums:
    """The sums over some windows.

    `parts` holds the merged statistics of the events by model, `models` the models. `newest` is the start of the last
    window with events and the id of its model.
    """

    end_us: int
    windows: int
    fired: int
    events: int
    outliers: int
    late: int
    dead: int
    filtered: int
    expected: float | None
    most_outliers: int
    fires_at: int | None
    p_value: float | None
    newest: tuple[int, int] | None = None
    parts: Mapping[int, Part] = field(default_factory=dict)
    models: Mapping[int, ScoredBy] = field(default_factory=dict)


def sum_window(window: RolledWindow, scored_by: Callable[[int], ScoredBy]) -> RollupSums:
    """Return the sums over one window.

    Args:
        window: The stored window.
        scored_by: Returns the model of a threshold row.
    """
    model, part = None, None
    if window.payload is not None and window.threshold_id is not None and window.events:
        model = scored_by(window.threshold_id)
        part = replace(decode_part(window.payload), drift=None)
    expected = window.expected
    return RollupSums(
        end_us=window.end_us,
        windows=int(window.judged),
        fired=int(window.fired),
        events=window.events,
        outliers=window.outliers,
        late=window.late,
        dead=window.dead,
        filtered=window.filtered,
        expected=None if expected is None else round(expected / _EXPECTED_UNIT) * _EXPECTED_UNIT,
        most_outliers=window.outliers,
        fires_at=window.fires_at,
        p_value=window.p_value,
        newest=None if model is None else (window.start_us, model.model_id),
        parts={} if model is None or part is None else {model.model_id: part},
        models={} if model is None else {model.model_id: model},
    )


def merge_sums(sums: Sequence[RollupSums]) -> RollupSums:
    """Return the sums over all windows of the arguments, of which there is at least one."""
    models = {model_id: model for each in sums for model_id, model in each.models.items()}
    parts = {
        model_id: merge_parts([each.parts[model_id] for each in sums if model_id in each.parts]) for model_id in models
    }
    expected = [each.expected for each in sums if each.expected is not None]
    return RollupSums(
        end_us=max(each.end_us for each in sums),
        windows=sum(each.windows for each in sums),
        fired=sum(each.fired for each in sums),
        events=sum(each.events for each in sums),
        outliers=sum(each.outliers for each in sums),
        late=sum(each.late for each in sums),
        dead=sum(each.dead for each in sums),
        filtered=sum(each.filtered for each in sums),
        expected=sum(expected) if expected else None,
        most_outliers=max(each.most_outliers for each in sums),
        fires_at=min((each.fires_at for each in sums if each.fires_at is not None), default=None),
        p_value=min((each.p_value for each in sums if each.p_value is not None), default=None),
        newest=max((each.newest for each in sums if each.newest is not None), default=None),
        parts=parts,
        models=models,
    )


def build_row(sums: RollupSums, *, start_us: int, resolution_us: int) -> RollupRow:
    """Return the row of an interval. The energies are those of the events that the newest model scored."""
    model = None if sums.newest is None else sums.models[sums.newest[1]]
    energies = None if model is None else summarise_energies(sums.parts[model.model_id], model.scale)
    return RollupRow(
        resolution_us=resolution_us,
        start_us=start_us,
        end_us=sums.end_us,
        windows=sums.windows,
        fired=sums.fired,
        events=sums.events,
        outliers=sums.outliers,
        late=sums.late,
        dead=sums.dead,
        filtered=sums.filtered,
        expected=sums.expected,
        most_outliers=sums.most_outliers,
        fires_at=sums.fires_at,
        p_value=sums.p_value,
        energy_p50=None if energies is None else energies.p50,
        energy_p99=None if energies is None else energies.p99,
        energy_max=None if energies is None else energies.maximum,
        model_version=None if model is None else model.version,
    )
