"""The methods of the comparison: Outrider by its back-test, and scores with a threshold on their number per window."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import numpy as np
from click.testing import CliRunner

from benchmarks.real_streams.scores import SCORES
from benchmarks.real_streams.series import Float64, Series
from config.loading import load
from config.settings import Settings
from config.time_format import SECOND_US
from consumers.decoded_batch import Events
from monitor.backtest import backtest
from monitor.backtest.models import fit_on_file
from monitor.backtest.outcome import FiredWindows
from monitor.cli.main import outrider
from monitor.pipeline.key_states import KeyedSource
from monitor.thresholds import tick

PERCENTILE = 99.0
MIN_OUTLIERS = 3
RESOLVE_AFTER = 3
STREAM = "series"


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """Incidents, as fired windows each, and the scores of all events; `window_us` is the length of a window.

    `open_spans` are the times from the opening to the resolution of each incident, [start, end) in microseconds.
    """

    incidents: Sequence[FiredWindows]
    open_spans: Sequence[tuple[int, int]]
    scores: Float64
    window_us: int


Method = Callable[[Series, Path], Detection]


def run_with_init(series: Series, folder: Path, changes: dict[str, dict[str, Any]] | None = None) -> Detection:
    """Run the back-test with the configuration that `outrider init` writes for the head.

    Args:
        series: The series.
        folder: A folder for files.
        changes: Settings of the stream to replace, by section.
    """
    head, path = folder / "head.csv", folder / "outrider.yaml"
    series.write(head, series.head)
    arguments = ["-c", str(path), "init", "--file", str(head)]
    result = CliRunner().invoke(outrider, arguments, catch_exceptions=False)
    if result.exit_code:
        raise click.ClickException(result.output)
    ((_, stream),) = load(path, os.environ).streams.items()
    written = stream.model_dump(mode="json", exclude_unset=True)
    for section, values in (changes or {}).items():
        written.setdefault(section, {}).update(values)
    return run_backtest(series, written, folder)


def run_by_hand(series: Series, folder: Path) -> Detection:
    """Run the back-test with settings that fit the series."""
    window_s = series.window_us // SECOND_US
    stream = {
        "event": {"time": {"field": "ts", "unit": "us"}, "features": series.feature_names},
        "model": {"warm_up": series.head},
        "window": {"size": f"{window_s}s"},
        "threshold": {"percentile": PERCENTILE, "look_back": f"{max(24 * 3600, 300 * window_s)}s"},
        "alerts": {"min_outliers": MIN_OUTLIERS, "resolve_after": RESOLVE_AFTER, "false_alarms": "1/week"},
    }
    return run_backtest(series, stream, folder)


def run_backtest(series: Series, stream: dict[str, Any], folder: Path) -> Detection:
    """Run the code of the daemon over the whole series."""
    path = folder / "all.csv"
    series.write(path, len(series.times_us))
    stream = stream | {"source": {"type": "file", "path": str(path)}}
    database = {"url": f"sqlite:///{folder / 'none.db'}"}
    settings = Settings.model_validate({"database": database, "device": "cpu", "streams": {STREAM: stream}})
    rules = settings.streams[STREAM]
    result = backtest(
        settings, STREAM, path, percentiles=[rules.threshold.percentile], false_alarms=[rules.alerts.false_alarms]
    )
    lives = [life for life in result.memories[0].incidents if life.fired_windows]
    end_us = int(series.times_us[-1]) + series.step_us
    return Detection(
        incidents=[life.fired_windows for life in lives],
        open_spans=[(life.row.opened_at_us, life.row.resolved_at_us or end_us) for life in lives],
        scores=score_with_first_model(series, settings, path),
        window_us=round(rules.window.size.total_seconds() * 1e6),
    )


def score_with_first_model(series: Series, settings: Settings, path: Path) -> Float64:
    """Return the energies of all events under the first model; an event with a missing value has the median energy."""
    models = fit_on_file(settings.streams[STREAM], path, "cpu")
    columns = [series.feature_names.index(name) for name in models.active.feature_names]
    features = series.features[:, columns]
    complete = ~np.isnan(features).any(axis=1)
    events = Events(offsets=np.flatnonzero(complete), times_us=series.times_us[complete], features=features[complete])
    if models.key_step is not None:
        events, _ = KeyedSource.from_rows([], models.key_step).derive(events)
    energies = models.scorer.energies(events.features, models.active.id).astype(np.float64)
    scores = np.full(len(features), np.median(energies))
    scores[complete] = energies
    return scores


def detect_by_count(series: Series, scores: Float64) -> Detection:
    """Open an incident for windows with `MIN_OUTLIERS` events above the percentile of the head's scores."""
    threshold = np.percentile(scores[: series.head], PERCENTILE)
    starts_us = series.times_us // series.window_us * series.window_us
    distinct_us, place = np.unique(starts_us, return_inverse=True)
    counts = np.bincount(place, weights=scores > threshold)
    fired_us = distinct_us[(counts >= MIN_OUTLIERS) & (distinct_us + series.window_us > series.times_us[series.head])]
    breaks = np.flatnonzero(np.diff(fired_us) > RESOLVE_AFTER * series.window_us) + 1
    incidents = [[(start, start + series.window_us) for start in run.tolist()] for run in np.split(fired_us, breaks)]
    incidents = [each for each in incidents if each]
    quiet_us = RESOLVE_AFTER * series.window_us
    return Detection(
        incidents=incidents,
        open_spans=[(fired[0][0], fired[-1][1] + quiet_us) for fired in incidents],
        scores=scores,
        window_us=series.window_us,
    )


def run_by_count(series: Series, folder: Path, score: Callable[[Series], Float64]) -> Detection:
    """Detect by the number of events above the percentile of the head's scores."""
    del folder
    return detect_by_count(series, score(series))


def run_energy_count(series: Series, folder: Path) -> Detection:
    """Detect by the number of events above a percentile of the energies of Outrider's model."""
    path = folder / "all.csv"
    series.write(path, len(series.times_us))
    stream = {
        "source": {"type": "file", "path": str(path)},
        "event": {"time": {"field": "ts", "unit": "us"}, "features": series.feature_names},
        "model": {"warm_up": series.head},
    }
    settings = Settings.model_validate({"device": "cpu", "streams": {STREAM: stream}})
    return detect_by_count(series, score_with_first_model(series, settings, path))


def run_without_magnitude(series: Series, folder: Path) -> Detection:
    """Run the back-test as `run_with_init`, without a law of the tail, so that windows are tested by counts only."""
    with patch.object(tick, "fit_tail_law", return_value=None):
        return run_with_init(series, folder)


ABLATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "no-derive": {"event": {"derive": "none"}},
    "no-season": {"threshold": {"season": "none"}},
    "refit-daily": {"model": {"refit": {"every": "1d", "over": "14d"}}},
}
"""Changes of the settings that `init` writes, by the suffix of the method's name. `init` writes no refits."""

METHODS: dict[str, Method] = {
    "outrider-init": run_with_init,
    **{f"outrider-{name}": partial(run_with_init, changes=changes) for name, changes in ABLATIONS.items()},
    "outrider-no-magnitude": run_without_magnitude,
    "outrider-hand": run_by_hand,
    "energy-count": run_energy_count,
    **{name: partial(run_by_count, score=score) for name, score in SCORES.items()},
}
"""The methods by name."""
