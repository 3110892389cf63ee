"""False drift incidents on the normal time of labelled streams, and the power to find a lasting shift.

    python -m benchmarks.drift_on_streams [--only nab asd] [--series N] [--half even|odd] [--no-power]

The drift step of the daemon runs on windows of an hour, with the horizons of an hour and a day and one false alarm a
week promised, a quarter of it to drift. The head of a series, at most ten days, is the training sample. An incident is
false if it opens more than a day away from a labelled anomaly. Time is measured after ten days. Power: the share of
lasting shifts of one feature, by a number of training deviations, at 50% and 62% of the series, after which a drift is
told within two days that is not told without the shift.

The columns: false incidents per week, their number and the weeks, the largest rate of a series, the share of the normal
time under an open drift incident, and the power by the size of the shift.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.real_streams.series import DATA, Series, load_stored
from benchmarks.statistical.table import show
from config.settings import Settings
from config.time_format import DAY_US, HOUR_US, WEEK_US
from monitor.control_plane.drift_step import DriftMonitor
from monitor.control_plane.rule_reader import RuleReader
from monitor.daemon.rules import build_stream_rules
from monitor.statistics.drift_sums import code_events
from monitor.statistics.part import Scale, summarise
from monitor.statistics.part_codec import encode_part
from monitor.statistics.training_profile import TrainingProfile, build_feature_profile, quantile_edges
from storage.control.drift import DriftBaselineRow, DriftDayRow, DriftFacts, DriftModel, DriftUpdate, DriftWindow
from storage.control.records import Incident

MAX_HEAD_US = 10 * DAY_US
SHIFTS = (0.5, 1.0, 2.0)
FEATURES = 4
PLACES = (0.5, 0.62)

Float64 = NDArray[np.float64]


class StreamWindows:
    """The judged windows of a series and its drift rows, as the store of the drift step."""

    def __init__(self, judged: Sequence[DriftWindow]) -> None:
        self.incidents: list[Incident] = []
        self._judged = judged
        self._starts_us = np.array([each.window_start_us for each in judged])
        self._until_us: int | None = None
        self._state: dict[str, Any] = {}
        self._baselines: list[DriftBaselineRow] = []
        self._days: list[DriftDayRow] = []

    def drift_facts(self, _: int, horizons_us: Sequence[int]) -> DriftFacts:
        """Return the progress; all windows are sealed and judged."""
        until_us = 0 if self._until_us is None else self._until_us
        return DriftFacts(
            until_us=self._until_us,
            rebased_from_us=None,
            state=self._state,
            sealed_until_us=int(self._starts_us[-1]) + HOUR_US,
            first_part_end_us=None,
            first_windows_us={length: self._first_us(until_us // length * length) for length in horizons_us},
            next_window_us=self._first_us(until_us),
        )

    def _first_us(self, from_us: int) -> int | None:
        at = int(np.searchsorted(self._starts_us, from_us))
        return int(self._starts_us[at]) if at < len(self._starts_us) else None

    def find_model_before(self, *_: int) -> DriftModel:
        """Return the only model."""
        return DriftModel(model_id=1, activated_us=int(self._starts_us[0]), season=None)

    def windows(self, _: int, __: int, from_us: int, until_us: int) -> Sequence[DriftWindow]:
        """Return the windows that start in [from, until)."""
        return self._judged[slice(*np.searchsorted(self._starts_us, [from_us, until_us]).tolist())]

    def baselines(self, *_: int) -> list[DriftBaselineRow]:
        """Return the baselines."""
        return self._baselines

    def days(self, *_: int) -> list[DriftDayRow]:
        """Return the stored days."""
        return list(self._days)

    def store_update(self, _: int, __: str, ___: int | None, update: DriftUpdate) -> bool:
        """Store a step."""
        self._until_us, self._state = update.until_us, dict(update.state)
        self._baselines += update.baselines
        self._days += [] if update.days is None else update.days.rows
        for row in update.update_incidents([each for each in self.incidents if each.status == "open"]):
            if row.id is None:
                self.incidents.append(row.with_id(len(self.incidents)))
            else:
                self.incidents[row.id] = row.with_id(row.id)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The training sample of a series: its profile, and the deviation of each feature."""

    profile: TrainingProfile
    mean: Float64
    deviation: Float64
    head: int

    def energies(self, features: Float64) -> NDArray[np.float32]:
        """Return half of the squared standardised distance of each event."""
        scaled = (features - self.mean) / np.where(self.deviation > 0, self.deviation, 1.0)
        return (0.5 * (scaled**2).sum(axis=1)).astype(np.float32)


def train(series: Series) -> Training:
    """Return the training sample: the head, at most ten days and at most four fifths of it."""
    begin_us = int(series.times_us[0])
    head = min(int(np.searchsorted(series.times_us, begin_us + MAX_HEAD_US)), series.head * 4 // 5)
    features = series.features[:head].astype(np.float32)
    part = Training(
        profile=TrainingProfile(features=build_feature_profile(features), energy_edges=np.arange(63, dtype=np.float32)),
        mean=features.mean(axis=0, dtype=np.float64),
        deviation=features.std(axis=0, dtype=np.float64),
        head=head,
    )
    edges = quantile_edges(part.energies(series.features[:head]))
    return Training(
        profile=TrainingProfile(features=part.profile.features, energy_edges=edges),
        mean=part.mean,
        deviation=part.deviation,
        head=head,
    )


def build_windows(times_us: NDArray[np.int64], features: Float64, training: Training) -> list[DriftWindow]:
    """Return the windows of an hour."""
    energies = training.energies(features)
    codes = code_events(training.profile, features.astype(np.float32), energies, None)
    starts_us, first = np.unique(times_us // HOUR_US * HOUR_US, return_index=True)
    bounds = [*first.tolist(), len(times_us)]
    scale = Scale(median=0.0, iqr=1.0)
    windows = []
    for number, start_us in enumerate(starts_us.tolist()):
        rows = slice(bounds[number], bounds[number + 1])
        part = summarise(energies[rows], np.zeros(rows.stop - rows.start, np.bool_), scale)
        payload = encode_part(replace(part, drift=codes.sum_rows(rows)))
        windows.append(
            DriftWindow(
                window_start_us=start_us, events=rows.stop - rows.start, outliers=0, fired=False, payload=payload
            )
        )
    return windows


def find_drifts(windows: Sequence[DriftWindow], training: Training) -> list[Incident]:
    """Run the drift step of the daemon over all windows; return the incidents."""
    settings = Settings.model_validate({"streams": {"s": {"source": {"type": "synthetic"}}}})
    rules = replace(build_stream_rules(settings, "s"), size_us=HOUR_US, horizons_us=(HOUR_US, DAY_US), max_age_us=2**62)
    names = tuple(f"x{column}" for column in range(len(training.mean)))
    model = SimpleNamespace(
        component_names=(), training_profile=training.profile, record=SimpleNamespace(feature_names=names, version=1)
    )
    store = StreamWindows(windows)
    monitor = DriftMonitor(RuleReader.constant(rules), 1, store=store, model=lambda _: model, now_us=lambda: 0)  # type: ignore[arg-type,return-value]
    while monitor.run_due():
        pass
    return store.incidents


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftMeasures:
    """False drifts of a series, its weeks, the covered share, and the found shifts by size."""

    false: int
    weeks: float
    covered: float
    found: dict[float, list[bool]]


def measure(series: Series, *, with_power: bool) -> DriftMeasures:
    """Measure one series."""
    training = train(series)
    windows = build_windows(series.times_us, series.features, training)
    incidents = find_drifts(windows, training)
    live_us = int(series.times_us[0]) + MAX_HEAD_US
    anomalies_us = series.times_us[series.is_anomaly]

    def is_near_anomaly(time_us: int) -> bool:
        return bool((np.abs(anomalies_us - time_us) <= DAY_US).any())

    starts_us = np.array([each.window_start_us for each in windows])
    normal = np.array([start >= live_us and not is_near_anomaly(start) for start in starts_us.tolist()])
    end_us = int(starts_us[-1]) + HOUR_US
    covered = np.zeros(len(windows), np.bool_)
    for each in incidents:
        covered |= (starts_us >= each.opened_at_us) & (starts_us < (each.resolved_at_us or end_us))
    told_us = {each.opened_at_us for each in incidents}
    return DriftMeasures(
        false=sum(live_us <= at_us < end_us and not is_near_anomaly(at_us) for at_us in told_us),
        weeks=float(normal.sum()) * HOUR_US / WEEK_US,
        covered=float((covered & normal).sum() / max(normal.sum(), 1)),
        found={shift: _find_shifts(series, training, shift, told_us) for shift in SHIFTS} if with_power else {},
    )


def _find_shifts(series: Series, training: Training, shift: float, told_us: set[int]) -> list[bool]:
    """Return for each planted shift whether a drift is told within two days that is not told without it."""
    columns = np.flatnonzero(training.deviation > 0)
    found = []
    for column in np.random.default_rng(1).choice(columns, min(FEATURES, len(columns)), replace=False):
        for place in PLACES:
            at = int(place * len(series.times_us))
            features = series.features.copy()
            features[at:, column] += shift * training.deviation[column]
            since_us = int(series.times_us[at])
            incidents = find_drifts(build_windows(series.times_us, features, training), training)
            found.append(
                any(
                    each.opened_at_us not in told_us and since_us < each.opened_at_us <= since_us + 2 * DAY_US + HOUR_US
                    for each in incidents
                )
            )
    return found


def make_row(name: str, measured: Sequence[DriftMeasures]) -> list[object]:
    """Return the table row of a set."""
    weeks, false = sum(each.weeks for each in measured), sum(each.false for each in measured)
    powers = [
        float(np.mean([hit for each in measured for hit in each.found.get(shift, [])])) if measured[0].found else "-"
        for shift in SHIFTS
    ]
    worst = max(each.false / each.weeks for each in measured if each.weeks)
    covered = float(np.mean([each.covered for each in measured]))
    return [name, len(measured), false / weeks, false, weeks, worst, covered, *powers]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", nargs="+", choices=("nab", "asd"), default=("nab", "asd"))
    parser.add_argument("--series", type=int, help="measure only the first N series of each set")
    parser.add_argument("--half", choices=("even", "odd"), help="measure only the series with an even or odd number")
    parser.add_argument("--no-power", action="store_true")
    options = parser.parse_args()
    rows = []
    for name in options.only:
        series = list(load_stored(name, options.data))
        if options.half is not None:
            series = series[options.half == "odd" :: 2]
        measured = [measure(each, with_power=not options.no_power) for each in series[: options.series]]
        rows.append(make_row(name, measured))
    shifts = [f"power {shift:g}" for shift in SHIFTS]
    columns = ("set", "series", "false a week", "false", "weeks", "worst series", "covered", *shifts)
    show("Drift on labelled streams, a quarter of 1 false alarm a week promised", columns, rows)


if __name__ == "__main__":
    main()
