"""`outrider check`: whether the settings work, what takes effect, and what the promises mean in numbers."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import click
import yaml

from config.errors import BrokerUnavailable, ConfigError, OutriderError
from config.settings import Settings, StreamSettings
from consumers.source import PartitionInfo
from monitor.cli.check_memory import MemoryBound
from monitor.cli.output.budget_text import (
    describe_budget,
    nominal_count_model,
    nominal_event_counts,
    small_reference_warning,
    suggest_window_size,
)
from monitor.cli.settings import load_settings
from monitor.thresholds.tick import load_clean_rate, load_count_model
from storage.control.models import ModelStore
from storage.database.engine import Database
from storage.database.revisions import KNOWN_REVISIONS
from storage.queries.status import StreamStatus, load_stream_ids, load_stream_status

_ASSUMED_FEATURES = 32
_MAX_SHOWN_PARTITIONS = 4


@dataclass(slots=True, kw_only=True)
class _CheckReport:
    """What was found, as comments below the settings, and what does not work."""

    problems: list[OutriderError] = field(default_factory=list)
    broker_unavailable: bool = False

    def print_comment(self, line: str, *, indent: int = 0) -> None:
        click.echo(f"# {'  ' * indent}{line}")

    def add_problem(self, error: OutriderError, *, indent: int = 0) -> None:
        self.problems.append(error)
        self.print_comment(f"does not work: {error}", indent=indent)

    def raise_problems(self) -> None:
        """Raise what was found, all of it at once.

        Raises:
            OutriderError: Something does not work.
        """
        if not self.problems:
            return
        said = list(dict.fromkeys(str(error) for error in self.problems))
        if any(error.exit_code == ConfigError.exit_code for error in self.problems):
            raise ConfigError(*said)
        raise OutriderError("\n".join(said))


@click.command(name="check")
@click.option("--offline", is_flag=True, help="Connect to nothing: neither the database nor the sources.")
@click.pass_context
def command(ctx: click.Context, offline: bool) -> None:
    """Validate the settings, connect, and print what takes effect.

    The settings are written as YAML, without secrets; all else follows as comments.
    """
    settings = load_settings(ctx)
    click.echo(yaml.safe_dump(settings.masked(), sort_keys=False, allow_unicode=True))
    report = _CheckReport()
    standings: dict[str, StreamStatus] = {}
    if not offline:
        standings = _check_database(settings, report)
        _check_device(settings, report)
    for name, own in settings.streams.items():
        _check_stream(settings, name, own, standings.get(name), report, offline=offline)
    report.raise_problems()
    click.echo("# All of it works." if not offline else "# The settings are valid; nothing was connected to.")


def _check_database(settings: Settings, report: _CheckReport) -> dict[str, StreamStatus]:
    """Look at the database; return where its streams stand, as far as its schema is ours."""
    report.print_comment("database")
    try:
        with Database(settings.database.url) as db:
            db.check_writable()
            if db.file is not None and not db.file.exists():
                report.print_comment(f"{db.address} is not there yet: the first run makes it", indent=1)
                return {}
            found = db.schema_revision()
            if found is None or found in KNOWN_REVISIONS[:-1]:
                missing = "has no tables yet: the first run makes them"
                older = f"has schema {found}: the next run brings it to {KNOWN_REVISIONS[-1]}"
                report.print_comment(f"{db.address} {missing if found is None else older}", indent=1)
                return {}
            db.check_schema()
            report.print_comment(f"{db.address} has schema {found}", indent=1)
            standings = {
                name: load_stream_status(db, stream_id, lease=f"control:{name}")
                for name, stream_id in load_stream_ids(db).items()
                if name in settings.streams
            }
            for standing in standings.values():
                _check_model(db, standing, report)
            return standings
    except OutriderError as error:
        report.add_problem(error, indent=1)
        return {}


def _check_model(db: Database, standing: StreamStatus, report: _CheckReport) -> None:
    """Load the active model, as the daemon would."""
    if standing.model is None:
        return
    from monitor.models.scoring import load_model

    try:
        load_model(ModelStore(db).load(standing.model.id), "cpu")
        report.print_comment(
            f"stream {standing.name} has model {standing.model.version} ({standing.model.kind})", indent=1
        )
    except OutriderError as error:
        report.add_problem(error, indent=1)


def _check_device(settings: Settings, report: _CheckReport) -> None:
    if settings.device != "cuda":
        return
    from monitor.models.scoring import pick_device

    report.print_comment("device")
    try:
        report.print_comment(f"{pick_device(settings.device)} is there", indent=1)
    except OutriderError as error:
        report.add_problem(error, indent=1)


def _check_stream(
    settings: Settings,
    name: str,
    own: StreamSettings,
    standing: StreamStatus | None,
    report: _CheckReport,
    *,
    offline: bool,
) -> None:
    report.print_comment(f"stream {name}")
    found, fetch = _check_source(settings, name, own, report, offline=offline)
    for line in _memory_lines(own, standing, found, fetch):
        report.print_comment(line, indent=1)
    for line in _budget_lines(own, standing):
        report.print_comment(line, indent=1)


def _check_source(
    settings: Settings, name: str, own: StreamSettings, report: _CheckReport, *, offline: bool
) -> tuple[list[PartitionInfo], int | None]:
    """Return the partitions that the source has, none when it is not asked, and the bound on what it fetches."""
    if own.source.type == "file" and own.source.is_stdin:
        report.print_comment("source: standard input, which is read once and was not tried", indent=1)
        return [], None
    from consumers.open import open_source

    found: list[PartitionInfo] = []
    fetch: int | None = None
    try:
        with contextlib.closing(open_source(name, settings, group=False)) as source:
            fetch = getattr(source, "memory_bound_bytes", None)
            if report.broker_unavailable and own.source.type == "kafka":
                report.print_comment("source: not asked, since the brokers do not answer", indent=1)
            elif not offline:
                found = source.discover()
                # Asked once more: with the partitions known the bound is the one that holds.
                fetch = getattr(source, "memory_bound_bytes", None)
    except OutriderError as error:
        report.add_problem(error, indent=1)
        report.broker_unavailable = report.broker_unavailable or isinstance(error, BrokerUnavailable)
    for each in found[:_MAX_SHOWN_PARTITIONS]:
        report.print_comment(f"source: {each.partition} has the offsets {each.begin:,} to {each.end:,}", indent=1)
    if len(found) > _MAX_SHOWN_PARTITIONS:
        report.print_comment(f"source: and {len(found) - _MAX_SHOWN_PARTITIONS:,} partitions more", indent=1)
    return found, fetch


def _memory_lines(
    own: StreamSettings, standing: StreamStatus | None, found: list[PartitionInfo], fetch: int | None
) -> Iterator[str]:
    features = _feature_count(own, standing)
    bound = MemoryBound(
        fetch_bytes=fetch, partitions=_partition_count(own, found), features=features or _ASSUMED_FEATURES
    )
    first, *parts = bound.lines()
    yield f"memory: {first}"
    yield from parts
    if features is None:
        yield f"  ({_ASSUMED_FEATURES} features are a guess: event.features is auto, and no model is stored)"
    if not found and own.source.type == "kafka":
        yield "  (for one partition: how many there are, only the broker knows)"


def _partition_count(own: StreamSettings, found: list[PartitionInfo]) -> int:
    return len(found) or (own.source.partitions if own.source.type == "synthetic" else 1)


def _feature_count(own: StreamSettings, standing: StreamStatus | None) -> int | None:
    if standing is not None and standing.model is not None:
        return len(standing.model.feature_names)
    if own.event.features != "auto":
        return len(own.event.features)
    return own.source.features if own.source.type == "synthetic" else None


def _budget_lines(own: StreamSettings, standing: StreamStatus | None) -> Iterator[str]:
    """Say what the promise means for windows as they are, or for some sizes where none was judged yet."""
    limit = None if standing is None else standing.threshold
    law = nominal_count_model(own) if limit is None else load_count_model(limit.details)
    clean_rate = law.rate if limit is None else load_clean_rate(limit.details)
    typical = None if standing is None else standing.events_per_window
    counts = nominal_event_counts(own) if typical is None else (typical,)
    yield from describe_budget(law, counts, own, clean_rate)
    hint = suggest_window_size(law, counts[-1], own)
    if hint is not None:
        yield f"  {hint}"
    thin = small_reference_warning(own) if limit is None else None
    if thin is not None:
        yield f"  {thin}"
    if typical is None and own.source.type != "synthetic":
        yield "  (no window has been judged yet: these are for some numbers of events a window)"
