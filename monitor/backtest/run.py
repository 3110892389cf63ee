"""Back-test: the code of the daemon over a file or stored windows, with event time as the clock. Stores nothing."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from functools import partial
from os import PathLike, environ
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from config.auto_sizes import with_sizes
from config.errors import ConfigError
from config.loading import load
from config.settings import Settings
from config.sources import FileSourceSettings
from config.stream_rules import WindowRules
from config.units import Rate, format_duration, parse_rate, to_us
from consumers.codec import make_codec
from consumers.decoded_batch import DecodedBatch
from consumers.files.source import FileSource
from consumers.window_schedule import make_window_schedule
from monitor.backtest.cells import CellRefits, GridCell, build_cells
from monitor.backtest.event_replay import CachedScorer, EventReplay
from monitor.backtest.labels import Burst, Labels, group_bursts, read_labels
from monitor.backtest.models import BacktestModels, fit_on_file, load_stored_models
from monitor.backtest.outcome import Backtest, LabelledBursts, compute_outcome
from monitor.backtest.window_replay import WindowReplay
from monitor.daemon.rules import build_rule_schedule
from monitor.statistics.part_codec import decode_part
from storage.control.models import Activation
from storage.control.settings import SettingsStore
from storage.database.engine import Database
from storage.ledger.ledger import Ledger
from storage.queries.recorded_windows import RecordedWindows
from storage.queries.times import TimeBound

DEFAULT_PERCENTILES = (99.0, 99.5, 99.9)
DEFAULT_FALSE_ALARMS = ("1/day", "1/week")

ProgressCallback = Callable[[int, int], None]


def backtest(
    settings: Settings | str | PathLike[str],
    stream: str,
    file: str | PathLike[str] | None = None,
    *,
    since: TimeBound | None = None,
    percentiles: Sequence[float] | None = None,
    false_alarms: Sequence[str | Rate] | None = None,
    labels: str | PathLike[str] | None = None,
    progress: ProgressCallback | None = None,
) -> Backtest:
    """Replay a file or stored windows with the code of the daemon, for each pair of percentile and false-alarm budget.

    The daemon's fold, control plane and rules run with event time as the clock and stores in memory. Over a file, every
    event is decoded and scored once, by the stream's active model or, without a stored model, by one fitted on the
    first `model.warm_up` events. Over stored windows, the outliers above each cell's thresholds are counted from the
    windows' statistics. Each cell starts with the model's reference percentile, as a daemon does.

        from monitor.backtest import backtest
        backtest("outrider.yaml", "payments", since="7d", percentiles=[99, 99.9]).to_frame()

    Args:
        settings: The settings, or the path of the configuration.
        stream: Name of the stream.
        file: File of recorded events; None replays the stored windows.
        since: Start: a time, or a duration back from the latest event. Only for stored windows.
        percentiles: Percentiles of the grid; by default 99, 99.5, 99.9 and the stream's own.
        false_alarms: False-alarm budgets of the grid, such as "1/week"; by default 1/day, 1/week and the stream's own.
        labels: File of labels (see `monitor.backtest.labels`).
        progress: Called with the number of rows or windows done and their total.

    Returns:
        The outcome of each cell; percentiles vary slowest.

    Raises:
        ConfigError: An argument is not valid, or there is no model, file or window to replay.
        ModelError: The file has too few events to fit a model.
    """
    if not isinstance(settings, Settings):
        settings = load(Path(settings), environ)
    if stream not in settings.streams:
        raise ConfigError(f"there is no stream {stream!r}; the streams are {', '.join(settings.streams)}")
    build_grid = partial(_build_grid, stream=stream, percentiles=percentiles, budgets=false_alarms)
    build_grid(settings)
    labelled = None if labels is None else read_labels(Path(labels))
    report_progress = progress or (lambda _done, _total: None)
    if file is not None:
        if since is not None:
            raise ConfigError("since applies to stored windows, but a file is read from its start: omit one of them")
        return _backtest_file(settings, stream, Path(file), build_grid, labelled, report_progress)
    return _backtest_windows(settings, stream, since, build_grid, labelled, report_progress)


BacktestGrid = tuple[Sequence[float], Sequence[Rate]]
GridBuilder = Callable[[Settings], BacktestGrid]
"""Returns the grid for the settings of the stream. Those that are `auto` are known when a model is."""


def _build_grid(
    settings: Settings, *, stream: str, percentiles: Sequence[float] | None, budgets: Sequence[str | Rate] | None
) -> BacktestGrid:
    stream_settings = settings.streams[stream]
    try:
        rates = [rate if isinstance(rate, Rate) else parse_rate(rate) for rate in budgets or DEFAULT_FALSE_ALARMS]
    except ValueError as error:
        raise ConfigError(f"false_alarms: {error}") from error
    if budgets is None and stream_settings.alerts.false_alarms.per_week not in {rate.per_week for rate in rates}:
        rates.append(stream_settings.alerts.false_alarms)
    wanted_percentiles = (
        list(percentiles) if percentiles else sorted({*DEFAULT_PERCENTILES, stream_settings.threshold.percentile})
    )
    for percentile in wanted_percentiles:
        try:
            stream_settings.threshold.__class__.model_validate({"percentile": percentile})
        except ValidationError as error:
            raise ConfigError(f"percentile: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    return list(dict.fromkeys(wanted_percentiles)), rates


def _backtest_file(
    settings: Settings,
    stream: str,
    path: Path,
    build_grid: GridBuilder,
    labels: Labels | None,
    report_progress: ProgressCallback,
) -> Backtest:
    stream_settings = settings.streams[stream]
    source = _file_source(path)
    event = stream_settings.event.model_copy(update={"format": "json"})
    if event.time is None:
        raise ConfigError(
            f"stream {stream} uses the time of reading as event time, which cannot be replayed: "
            "set event.time to the field with the time of the event"
        )
    stream_settings = stream_settings.model_copy(update={"source": source, "event": event})
    settings = settings.model_copy(update={"streams": {**settings.streams, stream: stream_settings}})
    models = load_stored_models(settings, stream) or fit_on_file(
        stream_settings, path, settings.device, longest_look_back=settings.retention.windows
    )
    settings = _with_found_sizes(settings, stream, models)
    cells = build_cells(
        settings, stream, *build_grid(settings), models.models, refits=CellRefits(models.add), counts_keys=True
    )
    for cell in cells:
        cell.activate(models.active.id, Activation(valid_from_us=0, computed_at_us=0))
    scores = CachedScorer(models.scorer)
    replays = [EventReplay(cell, scores, models.key_step) for cell in cells]
    found = _LabelledEvents(labels, apart_us=_match_slack_us(settings, stream))
    for batch, rows in _read_batches(settings, stream, path, models):
        scores.clear()
        for replay in replays:
            replay.add_batch(batch)
        found.add_batch(batch)
        report_progress(batch.end, rows)
    for replay in replays:
        replay.finish()
    return _build_result(
        settings, stream, cells, found.labelled_bursts(), [found.count_flagged(replay.flagged) for replay in replays]
    )


def _with_found_sizes(settings: Settings, stream: str, models: BacktestModels) -> Settings:
    """Return the settings with the values that the first model found for those that are `auto`."""
    found = with_sizes(settings.streams[stream], models.sizes)
    return settings.model_copy(update={"streams": {**settings.streams, stream: found}})


def _file_source(path: Path) -> FileSourceSettings:
    if str(path) == "-":
        raise ConfigError("standard input cannot be read twice, to fit and to replay: write the events to a file first")
    try:
        return FileSourceSettings(type="file", path=path)
    except ValidationError as error:
        raise ConfigError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def _read_batches(
    settings: Settings, stream: str, path: Path, models: BacktestModels
) -> Iterator[tuple[DecodedBatch, int]]:
    """Yield the decoded batches of the file, each with the file's total number of rows."""
    stream_settings = settings.streams[stream]
    with closing(FileSource(path, max_event_bytes=stream_settings.event.max_size)) as source:
        discovered = source.discover()
        starts = source.resolve("earliest", discovered)
        codec = make_codec(
            stream_settings.event,
            models.active.feature_names,
            layout=source.layout,
            max_future_us=to_us(stream_settings.window.max_future),
        )
        ended = False
        while not ended:
            polled = source.poll(0.25)
            for partition in polled.assigned:
                source.seek(partition, starts[partition])
            for raw in polled.batches:
                yield codec.decode(raw, time.time_ns() // 1_000), discovered[0].end
            ended = bool(polled.ended)


def _backtest_windows(
    settings: Settings,
    stream: str,
    since: TimeBound | None,
    build_grid: GridBuilder,
    labels: Labels | None,
    report_progress: ProgressCallback,
) -> Backtest:
    if labels is not None and labels.of_events:
        raise ConfigError(
            f"{labels.path} labels single events, but stored windows do not contain events: label intervals (start, "
            "end), or give the FILE of events"
        )
    models = load_stored_models(settings, stream)
    if models is None:
        raise ConfigError(
            f"stream {stream} has no model and no windows yet: run the daemon first, or give a FILE of events"
        )
    settings = _with_found_sizes(settings, stream, models)
    stream_settings = settings.streams[stream]
    with Database(settings.database.url, read_only=True) as db:
        stream_id = Ledger(db).find_stream(stream)
        recorded = None if stream_id is None else RecordedWindows(db, stream_id)
        time_range = None if recorded is None else recorded.find_range(since)
        if recorded is None or time_range is None or stream_id is None:
            when = "" if since is None else f" since {since}"
            raise ConfigError(
                f"stream {stream} has no judged windows{when}: run the daemon first, or give a FILE of events"
            )
        windows = _read_stored_windows(db, stream_id, settings, stream)
        cells = build_cells(settings, stream, *build_grid(settings), models.models, windows)
        ends = make_window_schedule(cells[0].rules.windows)
        replays = [WindowReplay(cell, recorded.read_activations()) for cell in cells]
        shadow: dict[int, dict[int, bytes]] = {}
        for window in recorded.read_shadow_windows():
            shadow.setdefault(window.model_id, {})[window.window_start_us] = window.payload
        for cell in cells:
            cell.memory.shadow = shadow
        scales = {model_id: model.scale for model_id, model in models.models.items()}
        for done, window in enumerate(recorded.read_windows(time_range.since_us), 1):
            if window.window_end_us != ends.end_us(window.window_start_us):
                raise ConfigError(
                    f"stream {stream}: the stored windows have a length of "
                    f"{format_duration(timedelta(microseconds=window.window_end_us - window.window_start_us))}, "
                    f"but window.size is {format_duration(stream_settings.window.size)}: set it to their length, or "
                    "give a FILE of events"
                )
            part = decode_part(window.payload)
            for replay in replays:
                replay.add_window(
                    window.window_start_us, window.window_end_us, window.model_id, part, scales[window.model_id]
                )
            report_progress(done, time_range.windows)
        for replay in replays:
            replay.finish()
    labelled = (
        None
        if labels is None
        else LabelledBursts(bursts=_overlapping_bursts(labels.intervals, time_range.since_us, time_range.end_us))
    )
    return _build_result(settings, stream, cells, labelled, [None] * len(cells))


def _read_stored_windows(db: Database, stream_id: int, settings: Settings, stream: str) -> tuple[WindowRules, ...]:
    """Return the windows over event time if they have changed, and if the newest ones are those of the settings."""
    rows = SettingsStore(db).read_rows(stream_id)
    if not rows:
        return ()
    windows = build_rule_schedule(settings, stream, rows).newest.windows
    is_present = windows[-1].size_us == to_us(settings.streams[stream].window.size)
    return windows if is_present and len(windows) > 1 else ()


def _overlapping_bursts(bursts: Sequence[Burst], begin_us: int, end_us: int) -> list[Burst]:
    return [burst for burst in bursts if burst.start_us < end_us and burst.end_us > begin_us]


class _LabelledEvents:
    """Labelled events found in the file."""

    def __init__(self, labels: Labels | None, *, apart_us: int) -> None:
        self._labels = labels
        self._apart_us = apart_us
        self._times_us: list[NDArray[np.int64]] = []
        self._bursts: list[NDArray[np.int64]] = []
        self._offsets: list[NDArray[np.int64]] = []
        self._span_us: tuple[int, int] = (0, 0)

    def add_batch(self, batch: DecodedBatch) -> None:
        """Add the labelled events of a batch."""
        events = batch.events
        if self._labels is None or not len(events):
            return
        first, last = int(events.times_us.min()), int(events.times_us.max())
        self._span_us = (min(self._span_us[0] or first, first), max(self._span_us[1], last))
        if self._labels.of_events:
            labelled, bursts = self._labels.label_events(events)
            self._times_us.append(events.times_us[labelled])
            self._bursts.append(bursts[labelled])
            self._offsets.append(events.offsets[labelled])

    def labelled_bursts(self) -> LabelledBursts | None:
        """Return the labelled bursts within the file, None without labels.

        Raises:
            ConfigError: No event of the file is labelled.
        """
        if self._labels is None:
            return None
        if not self._labels.of_events:
            return LabelledBursts(bursts=_overlapping_bursts(self._labels.intervals, *self._span_us))
        times_us, bursts = (np.concatenate([np.empty(0, np.int64), *all_]) for all_ in (self._times_us, self._bursts))
        if not len(times_us):
            raise ConfigError(f"the file has none of the events labelled in {self._labels.path}")
        return LabelledBursts(bursts=group_bursts(times_us, bursts, apart_us=self._apart_us), events=len(times_us))

    def count_flagged(self, flagged: Sequence[NDArray[np.int64]]) -> int | None:
        """Return the number of labelled events among the outliers' offsets, None if no events are labelled."""
        if self._labels is None or not self._labels.of_events:
            return None
        none = np.empty(0, np.int64)
        return len(np.intersect1d(np.concatenate([none, *flagged]), np.concatenate([none, *self._offsets])))


def _match_slack_us(settings: Settings, stream: str) -> int:
    """Return the slack for matching bursts: the time after which an incident without outliers is resolved."""
    stream_settings = settings.streams[stream]
    return stream_settings.alerts.resolve_after * to_us(stream_settings.window.size)


def _build_result(
    settings: Settings,
    stream: str,
    cells: Sequence[GridCell],
    labelled: LabelledBursts | None,
    found: Sequence[int | None],
) -> Backtest:
    stream_settings = settings.streams[stream]
    outcomes = [
        compute_outcome(
            cell.memory,
            cell.percentile,
            cell.false_alarms,
            labelled,
            size_us=cell.rules.size_us,
            slack_us=_match_slack_us(settings, stream),
            min_outliers=stream_settings.alerts.min_outliers,
            found_events=events,
        )
        for cell, events in zip(cells, found, strict=True)
    ]
    judged = [window for window in cells[0].memory.windows if window.judged]
    if not judged:
        raise ConfigError(f"stream {stream}: no window with events to judge")
    return Backtest(
        stream=stream,
        begin_us=judged[0].window_start_us,
        end_us=judged[-1].window_end_us,
        cells=outcomes,
        memories=[cell.memory for cell in cells],
        refits=[() if cell.refits is None else tuple(cell.refits.rows) for cell in cells],
    )
