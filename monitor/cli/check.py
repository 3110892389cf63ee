"""`outrider check`: validate the settings, connect, and print the effective settings with their consequences."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import click
import yaml

from config.errors import BrokerUnavailable, ConfigError, OutriderError
from config.settings import Settings, StreamSettings
from consumers.source import PartitionInfo
from monitor.cli.check_memory import MemoryBound, describe_process
from monitor.cli.check_reach import budget_lines, closing_lines, find_reach, known_rate, preview_sizes
from monitor.cli.check_sample import SampleReport, decode_sample
from monitor.cli.output.reach_text import describe_milestones
from monitor.cli.output.tables import escape_unprintable
from monitor.cli.settings import load_settings
from monitor.daemon.connections import describe_connections
from monitor.daemon.shared_settings import preview_settings
from monitor.daemon.stored_sizes import follow_stored_sizes
from monitor.models.warm_up_progress import format_rejections
from storage.control.models import ModelStore
from storage.control.settings import SettingsStore
from storage.database.engine import Database
from storage.database.revisions import KNOWN_REVISIONS
from storage.queries.status import StreamStatus, load_stream_ids, load_stream_status

_ASSUMED_FEATURES = 32
_MAX_SHOWN_PARTITIONS = 4


@dataclass(slots=True, kw_only=True)
class _CheckReport:
    """Comments printed below the settings, the errors found so far, and the bytes of events of each stream.

    `never` holds the names of what the settings of a stream never reach.
    """

    problems: list[OutriderError] = field(default_factory=list)
    event_bytes: list[int] = field(default_factory=list)
    broker_unavailable: bool = False
    never: dict[str, list[str]] = field(default_factory=dict)

    def print_comment(self, line: str, *, indent: int = 0) -> None:
        click.echo(f"# {'  ' * indent}{line}")

    def add_problem(self, error: OutriderError, *, indent: int = 0) -> None:
        self.problems.append(error)
        self.print_comment(f"error: {error}", indent=indent)

    def raise_problems(self) -> None:
        """Raise all errors found as one.

        Raises:
            ConfigError: At least one error is a configuration error.
            OutriderError: All errors are errors of another kind.
        """
        if not self.problems:
            return
        messages = list(dict.fromkeys(str(error) for error in self.problems))
        if any(error.exit_code == ConfigError.exit_code for error in self.problems):
            raise ConfigError(*messages)
        raise OutriderError("\n".join(messages))


@click.command(name="check")
@click.option("--offline", is_flag=True, help="Do not connect to the database or the sources.")
@click.pass_context
def command(ctx: click.Context, offline: bool) -> None:
    """Validate the settings, connect, and print the effective settings.

    The settings are printed as YAML without secrets. The results of the checks follow as comments. A sample of the
    records is decoded: those that would be rejected are shown with the reason. Nothing is stored.
    """
    settings = load_settings(ctx)
    click.echo(yaml.safe_dump(settings.masked(), sort_keys=False, allow_unicode=True))
    report = _CheckReport()
    _check_templates(settings, report)
    statuses: dict[str, StreamStatus] = {}
    if not offline:
        settings, statuses = _check_database(settings, report)
        _check_device(settings, report)
    for name, stream_settings in settings.streams.items():
        _check_stream(settings, name, stream_settings, statuses.get(name), report, offline=offline)
    report.print_comment(describe_process(report.event_bytes))
    report.raise_problems()
    for line in closing_lines(report.never, offline=offline):
        report.print_comment(line)


def _check_templates(settings: Settings, report: _CheckReport) -> None:
    """Render the templates of messages with samples."""
    from monitor.notify.template_check import find_template_problems

    for problem in find_template_problems(settings.notify):
        if problem.is_error:
            report.add_problem(ConfigError(problem.text))
        else:
            report.print_comment(f"warning: {problem.text}")


def _check_database(settings: Settings, report: _CheckReport) -> tuple[Settings, dict[str, StreamStatus]]:
    """Check the database.

    Returns:
        The settings with the stored values of those that are `auto`, and the status of the stored streams. Without a
        current schema these are the given settings and no status.
    """
    report.print_comment("database")
    try:
        with Database(settings.database.url) as db:
            db.check_writable()
            if db.file is not None and not db.file.exists():
                report.print_comment(f"{db.address} does not exist yet: the first run creates it", indent=1)
                return settings, {}
            counts = db.count_connections()
            if counts is not None:
                for line in describe_connections(*counts):
                    report.print_comment(line, indent=1)
            revision = db.schema_revision()
            if revision is None or revision in KNOWN_REVISIONS[:-1]:
                missing = "has no tables yet: the first run creates them"
                older = f"has schema {revision}: the next run upgrades it to {KNOWN_REVISIONS[-1]}"
                report.print_comment(f"{db.address} {missing if revision is None else older}", indent=1)
                return settings, {}
            db.check_schema()
            report.print_comment(f"{db.address} has schema {revision}", indent=1)
            statuses = {
                name: load_stream_status(db, stream_id, lease=f"control:{name}")
                for name, stream_id in load_stream_ids(db).items()
                if name in settings.streams
            }
            for status in statuses.values():
                _check_model(db, status, report)
                _check_shared_settings(db, settings, status, report)
            return follow_stored_sizes(db, settings), statuses
    except OutriderError as error:
        report.add_problem(error, indent=1)
        return settings, {}


def _check_model(db: Database, status: StreamStatus, report: _CheckReport) -> None:
    """Load the active model as the daemon does."""
    if status.model is None:
        return
    from monitor.models.scoring import load_model

    try:
        load_model(*ModelStore(db).load(status.model.id), "cpu")
        report.print_comment(f"stream {status.name} has model {status.model.version} ({status.model.kind})", indent=1)
        if status.model.derived_fields:
            fields = escape_unprintable(", ".join(status.model.derived_fields))
            report.print_comment(f"it derives change and roughness of {fields}", indent=2)
    except OutriderError as error:
        report.add_problem(error, indent=1)


def _check_shared_settings(db: Database, settings: Settings, status: StreamStatus, report: _CheckReport) -> None:
    """Print the changes of the stream's settings that a start with this file would make now."""
    facts = SettingsStore(db).read_facts(load_stream_ids(db)[status.name], owner="")
    try:
        for line in preview_settings(settings, status.name, facts):
            report.print_comment(f"stream {status.name}: {line}", indent=1)
    except ConfigError as error:
        report.add_problem(error, indent=1)


def _check_device(settings: Settings, report: _CheckReport) -> None:
    if settings.device != "cuda":
        return
    from monitor.models.scoring import pick_device

    report.print_comment("device")
    try:
        report.print_comment(f"{pick_device(settings.device)} is available", indent=1)
    except OutriderError as error:
        report.add_problem(error, indent=1)


def _check_stream(
    settings: Settings,
    name: str,
    stream_settings: StreamSettings,
    status: StreamStatus | None,
    report: _CheckReport,
    *,
    offline: bool,
) -> None:
    report.print_comment(f"stream {name}")
    partitions, fetch_bytes, sample = _check_source(settings, name, stream_settings, status, report, offline=offline)
    stream_settings, sizes = preview_sizes(stream_settings, sample, partitions)
    if sizes is not None:
        report.print_comment(sizes, indent=1)
    bound = _bound_memory(stream_settings, status, partitions, fetch_bytes)
    report.event_bytes.append(bound.total_bytes)
    for line in _memory_lines(bound, stream_settings, status, partitions):
        report.print_comment(line, indent=1)
    rate = known_rate(stream_settings, status, sample)
    for line in budget_lines(stream_settings, status, rate):
        report.print_comment(line, indent=1)
    found = find_reach(stream_settings, status, rate)
    for line in describe_milestones(stream_settings, None if rate is None else rate.mean_s, found):
        report.print_comment(line, indent=1)
    never = [each.name for each in found if each.after_us is None]
    if never:
        report.never[name] = never


def _check_source(
    settings: Settings,
    name: str,
    stream_settings: StreamSettings,
    status: StreamStatus | None,
    report: _CheckReport,
    *,
    offline: bool,
) -> tuple[list[PartitionInfo], int | None, SampleReport | None]:
    """Connect to the source, and decode a sample of its records.

    Returns:
        The partitions of the source, empty when it was not connected, the bound on fetched bytes, and the sample.
    """
    if stream_settings.source.type == "file" and stream_settings.source.is_stdin:
        report.print_comment("source: standard input, which can be read only once and was not opened", indent=1)
        return [], None, None
    from consumers.open import open_source

    partitions: list[PartitionInfo] = []
    fetch_bytes: int | None = None
    sample: SampleReport | None = None
    try:
        with contextlib.closing(open_source(name, settings, group=False)) as source:
            fetch_bytes = getattr(source, "memory_bound_bytes", None)
            if report.broker_unavailable and stream_settings.source.type == "kafka":
                report.print_comment("source: not checked, since the brokers do not answer", indent=1)
            elif not offline:
                partitions = source.discover()
                # Read the bound again: it depends on the partitions, which are known only now.
                fetch_bytes = getattr(source, "memory_bound_bytes", None)
                if stream_settings.source.type != "synthetic":
                    features = None if status is None or status.model is None else status.model.feature_names
                    sample = decode_sample(source, stream_settings, partitions, features)
    except OutriderError as error:
        report.add_problem(error, indent=1)
        report.broker_unavailable = report.broker_unavailable or isinstance(error, BrokerUnavailable)
    for each in partitions[:_MAX_SHOWN_PARTITIONS]:
        report.print_comment(f"source: {each.partition} has offsets {each.begin:,} to {each.end:,}", indent=1)
    if len(partitions) > _MAX_SHOWN_PARTITIONS:
        report.print_comment(f"source: and {len(partitions) - _MAX_SHOWN_PARTITIONS:,} more partitions", indent=1)
    if sample is not None:
        _report_sample(name, sample, report)
    return partitions, fetch_bytes, sample


def _report_sample(name: str, sample: SampleReport, report: _CheckReport) -> None:
    """Print the records of the sample that would be rejected; if none is usable, this is an error."""
    for line in sample.lines():
        report.print_comment(escape_unprintable(line), indent=1)
    if sample.is_unusable:
        report.add_problem(
            ConfigError(
                f"stream {name}: all {sample.n_records:,} records of the sample would be rejected: "
                f"{escape_unprintable(format_rejections(sample.rejections))}"
            ),
            indent=1,
        )


def _bound_memory(
    stream_settings: StreamSettings,
    status: StreamStatus | None,
    partitions: list[PartitionInfo],
    fetch_bytes: int | None,
) -> MemoryBound:
    return MemoryBound(
        fetch_bytes=fetch_bytes,
        partitions=_partition_count(stream_settings, partitions),
        features=_feature_count(stream_settings, status) or _ASSUMED_FEATURES,
        derives=stream_settings.event.derive != "none",
    )


def _memory_lines(
    bound: MemoryBound, stream_settings: StreamSettings, status: StreamStatus | None, partitions: list[PartitionInfo]
) -> Iterator[str]:
    first, *parts = bound.lines()
    yield f"memory: {first}"
    yield from parts
    if _feature_count(stream_settings, status) is None:
        yield f"  ({_ASSUMED_FEATURES} features are assumed: event.features is auto and no model is stored)"
    if not partitions and stream_settings.source.type == "kafka":
        yield "  (for one partition: the number of partitions is known only after connecting)"


def _partition_count(stream_settings: StreamSettings, partitions: list[PartitionInfo]) -> int:
    return len(partitions) or (stream_settings.source.partitions if stream_settings.source.type == "synthetic" else 1)


def _feature_count(stream_settings: StreamSettings, status: StreamStatus | None) -> int | None:
    if status is not None and status.model is not None:
        return len(status.model.feature_names)
    if stream_settings.event.features != "auto":
        return len(stream_settings.event.features)
    return stream_settings.source.features if stream_settings.source.type == "synthetic" else None
