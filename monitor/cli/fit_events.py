"""Training events of `outrider fit`: of a file, of a stream without a model, or the newest retained ones."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from config.settings import Settings, StreamSettings
    from consumers.batch import Partition, Position
    from consumers.source import PartitionInfo, Source
    from monitor.models.training_events import TrainingReader
    from monitor.models.training_set import TrainingSet
    from storage.database.engine import Database

log = logging.getLogger(__name__)

_LOG_INTERVAL_S = 5.0
_STALL_TIMEOUT_S = 60.0
_MAX_SHOWN_PARTITIONS = 4
_SAMPLED_DAYS = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenEvents:
    """The events to fit on, as chosen on the command line.

    Attributes:
        file: A file of events; None for the source of the stream.
        label: The field with the class of each event.
        last: The number of newest events.
        since: The duration before the latest event.
    """

    file: Path | None = None
    label: str | None = None
    last: int | None = None
    since: timedelta | None = None


def read_training_events(
    settings: "Settings", name: str, stream_settings: "StreamSettings", chosen: ChosenEvents
) -> "tuple[TrainingSet, NDArray[Any] | None]":
    """Read the training events and their labels; print which events are read, and show the progress.

    Raises:
        ConfigError: The options do not fit the source, or there are too few events for a model.
        BrokerUnavailable: The brokers do not answer.
    """
    from config.errors import ConfigError
    from monitor.models.fitting import encode_labels

    if chosen.label is not None and chosen.file is None:
        raise ConfigError("--label requires a FILE whose events have the field")
    if chosen.file is not None:
        training = _read_file(name, stream_settings, chosen, chosen.file)
    else:
        training = _read_stream(settings, name, stream_settings, chosen)
    return training, None if chosen.label is None else encode_labels(training, chosen.label)


def open_stream(db: "Database", settings: "Settings", name: str) -> int:
    """Upgrade the schema, open the stream and return its id."""
    from config.units import to_us
    from storage.database.migrations.upgrade import upgrade
    from storage.ledger.ledger import Ledger

    upgrade(db)
    window = settings.streams[name].window
    lead_us = to_us(window.grace) + to_us(window.ahead)
    return Ledger(db).open_stream(name, window_size_us=to_us(window.size), lead_us=lead_us).id


def _read_file(name: str, stream_settings: "StreamSettings", chosen: ChosenEvents, file: Path) -> "TrainingSet":
    from config.errors import ConfigError
    from consumers.files.source import FileSource
    from monitor.models.training_events import TrainingReader

    stream_settings = _with_file_format(stream_settings)
    features = _feature_names(stream_settings, chosen.label)
    with closing(FileSource(file, max_event_bytes=stream_settings.event.max_size)) as source:
        if chosen.last is not None or chosen.since is not None:
            if str(file) == "-":
                raise ConfigError("--last and --since require a file with an end; standard input has none")
            return _read_retained(source, name, stream_settings, chosen, features)
        _say(f"stream {name}: reading all events of {'standard input' if str(file) == '-' else file}, up to its end")
        starts = source.resolve("earliest", source.discover())
        with _show_progress(name, None) as report_progress:
            reader = TrainingReader(source, stream_settings, starts, wanted=None, features=features, label=chosen.label)
            training = reader.read(stop=lambda: False, deadline_s=None, progress=report_progress)
    assert training is not None, "stop() always returns False"
    return training


def _read_stream(
    settings: "Settings", name: str, stream_settings: "StreamSettings", chosen: ChosenEvents
) -> "TrainingSet":
    """Read the stored samples of the stream's windows; without enough of them, events of its source.

    Without options a stream with a model is read from its newest events: its positions are behind the first ones.
    """
    from consumers.open import open_source
    from monitor.pipeline.sources import register_sources, stored_positions
    from storage.control.models import ModelStore
    from storage.database.engine import Database
    from storage.ledger.ledger import Ledger

    with Database(settings.database.url) as db:
        sampled = read_sampled_events(db, open_stream(db, settings, name), name, chosen)
    if sampled is not None:
        return sampled
    _refuse_source_without_log(stream_settings, chosen)
    with Database(settings.database.url) as db, closing(open_source(name, settings, group=False)) as source:
        stream_id = open_stream(db, settings, name)
        active = ModelStore(db).active(stream_id)
        features = _feature_names(stream_settings, None)
        if features is None and active is not None:
            features = active.feature_names
        chooses = chosen.last is not None or chosen.since is not None
        if chooses:
            return _read_retained(source, name, stream_settings, chosen, features)
        starts: dict[Partition, Position] = {}
        if active is None or not _has_log(stream_settings):
            ledger = Ledger(db)
            partitions = register_sources(ledger, name, stream_id, source, stream_settings)
            starts = stored_positions(ledger, stream_id)
            if not _has_log(stream_settings) or _are_sufficient(partitions, starts):
                return _read_first(source, name, stream_settings, starts, partitions, features)
        return _read_retained(source, name, stream_settings, ChosenEvents(last=stream_settings.model.warm_up), features)


def read_sampled_events(db: "Database", stream_id: int, name: str, chosen: ChosenEvents) -> "TrainingSet | None":
    """Return the sampled events of windows without an incident; None if there are too few for a good model.

    The features are those of the active model. Events of a source have to be read instead.
    """
    from config.time_format import DAY_US, format_rounded_duration
    from config.units import to_us
    from monitor.models.refit import BLOCKING_KINDS
    from monitor.models.sampled_events import build_training_set, derived_fields, min_sampled_events, select_samples
    from storage.control.models import ModelStore
    from storage.control.refits import RefitStore

    store, active = RefitStore(db), ModelStore(db).active(stream_id)
    until_us = store.last_sample_end_us(stream_id)
    if active is None or until_us is None:
        return None
    after_us = until_us - (_SAMPLED_DAYS * DAY_US if chosen.since is None else to_us(chosen.since))
    spans = store.find_incidents(stream_id, BLOCKING_KINDS, after_us, until_us)
    excluded = [(each.since_us, until_us if each.until_us is None else each.until_us) for each in spans]
    names = store.feature_names(stream_id)
    samples = store.read_samples(stream_id, after_us, until_us)
    clean = select_samples(samples, excluded, {each for each, own in names.items() if own == active.feature_names})
    derived = derived_fields(active)
    training = build_training_set(clean, active.feature_names, derived=derived)
    needed = min_sampled_events(len(active.feature_names))
    if len(training) < needed:
        _say(
            f"stream {name}: the samples of its windows hold {len(training):,} events, fewer than {needed:,}: reading "
            "events of its source instead"
        )
        return None
    if chosen.last is not None:
        training = build_training_set(clean, active.feature_names, derived=derived, last=chosen.last)
    stands_for = sum(sample.events for sample in clean)
    left_out = len(samples) - len(clean)
    covered = format_rounded_duration(clean[-1].window_end_us - clean[0].window_start_us)
    _say(
        f"stream {name}: fitting on {len(training):,} sampled events of {len(clean):,} windows over {covered} "
        f"({stands_for:,} events); {left_out:,} windows with an incident or other features are left out"
    )
    return training


def _refuse_source_without_log(stream_settings: "StreamSettings", chosen: ChosenEvents) -> None:
    """Check that the source retains events if they are chosen from its end.

    Raises:
        ConfigError: It does not.
    """
    from config.errors import ConfigError

    if (chosen.last is not None or chosen.since is not None) and not _has_log(stream_settings):
        kind = "a synthetic stream" if stream_settings.source.type == "synthetic" else "standard input"
        raise ConfigError(f"--last and --since require a topic or a file; {kind} retains no events: give a FILE")


def _has_log(stream_settings: "StreamSettings") -> bool:
    """Return whether the source retains events and has an end."""
    return stream_settings.source.type == "kafka" or (
        stream_settings.source.type == "file" and not stream_settings.source.is_stdin
    )


def _are_sufficient(partitions: "Sequence[PartitionInfo]", starts: "dict[Partition, Position]") -> bool:
    """Return whether the log may have enough records for a model behind the start positions."""
    from monitor.models.training_set import min_training_events

    known = [each for each in partitions if each.partition in starts]
    return sum(each.end - starts[each.partition].next_offset for each in known) >= min_training_events(1)


def _read_first(
    source: "Source",
    name: str,
    stream_settings: "StreamSettings",
    starts: "dict[Partition, Position]",
    partitions: "Sequence[PartitionInfo]",
    features: tuple[str, ...] | None,
) -> "TrainingSet":
    """Read the first events behind the start positions; a topic only to its current end."""
    from monitor.models.training_events import TrainingReader

    wanted = stream_settings.model.warm_up
    waits = not _has_log(stream_settings)
    begins = {partition: position.next_offset for partition, position in starts.items()}
    _say(f"stream {name}: reading its first {wanted:,} events, from {_describe_partitions(partitions, begins)}")
    if waits:
        _say(f"stream {name}: the source has no end; waiting until it has delivered {wanted:,} events")
    with _show_progress(name, wanted) as report_progress:
        reader = TrainingReader(source, stream_settings, starts, wanted=wanted, features=features, waits=waits)
        training = reader.read(
            stop=(lambda: False) if waits else _StallCheck(reader), deadline_s=None, progress=report_progress
        )
    assert training is not None, "stop() never returns True"
    if len(training) < wanted:
        _say(f"stream {name}: the log has {len(training):,} usable events up to its end, not {wanted:,}")
    _check_sufficient(name, training)
    return training


def _read_retained(
    source: "Source",
    name: str,
    stream_settings: "StreamSettings",
    chosen: ChosenEvents,
    features: tuple[str, ...] | None,
) -> "TrainingSet":
    """Read the newest retained events."""
    from config.units import format_duration
    from monitor.models.retained_events import RetainedEventsReader

    partitions = source.discover()
    begins = {each.partition: each.begin for each in partitions}
    newest = "the retained events" if chosen.last is None else f"the newest {chosen.last:,} retained events"
    since = "" if chosen.since is None else f" of the {format_duration(chosen.since)} before the latest event"
    _say(f"stream {name}: reading {newest}{since}, from {_describe_partitions(partitions, begins)}")
    with _show_progress(name, chosen.last) as report_progress:
        reader = RetainedEventsReader(
            source, stream_settings, features=features, label=chosen.label, progress=report_progress
        )
        training = reader.read(partitions, last=chosen.last, since=chosen.since)
    if chosen.last is not None and len(training) < chosen.last:
        _say(f"stream {name}: {len(training):,} usable events are retained, not {chosen.last:,}")
    _check_sufficient(name, training)
    return training


def _check_sufficient(name: str, training: "TrainingSet") -> None:
    """Check that there are enough events for a model.

    Raises:
        ConfigError: There are too few.
    """
    from config.errors import ConfigError
    from monitor.models.fitting import describe_rejected
    from monitor.models.training_set import describe_features, min_training_events

    needed = min_training_events(len(training.names))
    if len(training) >= needed:
        return
    rejected = f" ({describe_rejected(training)})" if training.rejected else ""
    raise ConfigError(
        f"stream {name}: there are {len(training):,} usable events{rejected}; a model of "
        f"{describe_features(training.names)} needs at least {needed:,}: wait for more events, choose more with "
        f"--last or --since, or fit on a file: `outrider fit {name} FILE`"
    )


class _StallCheck:
    """Check of a read up to the end of a log: it ends with an error once no record arrives any more."""

    def __init__(self, reader: "TrainingReader") -> None:
        self._reader = reader
        self._n = -1
        self._since_s = time.monotonic()

    def __call__(self) -> bool:
        """Return False.

        Raises:
            BrokerUnavailable: No record has arrived for a minute, although the log has more.
        """
        from config.errors import BrokerUnavailable

        if self._reader.n_records != self._n:
            self._n, self._since_s = self._reader.n_records, time.monotonic()
        elif time.monotonic() - self._since_s > _STALL_TIMEOUT_S:
            raise self._reader.unavailable or BrokerUnavailable(
                f"no record was delivered for {_STALL_TIMEOUT_S:.0f} s and the end of the log is not reached; check "
                "that the brokers run, then try again"
            )
        return False


def _describe_partitions(partitions: "Sequence[PartitionInfo]", begins: "dict[Partition, int]") -> str:
    shown = [
        f"{each.partition} (offsets {begins.get(each.partition, each.begin):,} to {each.end:,})"
        for each in partitions[:_MAX_SHOWN_PARTITIONS]
    ]
    more = len(partitions) - _MAX_SHOWN_PARTITIONS
    return ", ".join([*shown, *([f"and {more:,} more partitions"] if more > 0 else [])])


def _say(text: str) -> None:
    """Print a line to standard error: standard output has the result."""
    click.echo(text, err=True)


@contextmanager
def _show_progress(name: str, wanted: int | None) -> Iterator[Callable[[int], None]]:
    """Yield a function that shows the number of events: as a bar on a terminal, else as a line every 5 seconds."""
    from monitor.cli.output.progress import progress_bar

    logged_s = time.monotonic()

    def report(n: int) -> None:
        nonlocal logged_s
        report_bar(n)
        if sys.stderr.isatty() or time.monotonic() - logged_s < _LOG_INTERVAL_S:
            return
        logged_s = time.monotonic()
        log.info(
            "Stream %s: %s%s events read.",
            name,
            f"{n:,}",
            "" if wanted is None else f" of {wanted:,}",
            extra={"action": "fit", "stream": name, "events": n, "wanted": wanted},
        )

    with progress_bar("reading events", wanted) as report_bar:
        yield report


def _with_file_format(stream_settings: "StreamSettings") -> "StreamSettings":
    """Return the settings for reading a file: its suffix determines the format, not `event.format`."""
    if stream_settings.event.format == "json":
        return stream_settings
    return stream_settings.model_copy(update={"event": stream_settings.event.model_copy(update={"format": "json"})})


def _feature_names(stream_settings: "StreamSettings", label: str | None) -> tuple[str, ...] | None:
    """Return the configured features, None for `auto`.

    Raises:
        ConfigError: The label is also a feature, so the model would see the answer.
    """
    from config.errors import ConfigError

    if stream_settings.event.features == "auto":
        return None
    if label in stream_settings.event.features:
        raise ConfigError(f"--label {label}: this field is also in event.features; remove it there")
    return tuple(stream_settings.event.features)
