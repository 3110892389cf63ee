"""`outrider offsets`: show or reset the positions of a stream, which are stored in SQL."""

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import click

from config.errors import BrokerUnavailable, ConfigError
from config.settings import Settings
from config.sources import FileSourceSettings, parse_start_position
from config.time_format import format_optional_time
from consumers.batch import Partition
from consumers.open import open_source
from consumers.source import PartitionInfo, Source
from monitor.cli.command_group import DefaultVerbGroup
from monitor.cli.database import format_no_history, has_history, open_database
from monitor.cli.output.tables import format_option, write_rows
from monitor.cli.settings import load_settings, require_stream
from storage.database.engine import Database
from storage.ledger.ledger import Ledger
from storage.ledger.sources import NewSource, SourceState
from storage.queries.status import load_stream_ids

COLUMNS = (
    "stream",
    "topic",
    "partition",
    "incarnation",
    "next_offset",
    "log_begin",
    "log_end",
    "lag",
    "watermark",
    "last_commit",
    "owner",
)
_TABLE_COLUMNS = ("topic", "partition", "incarnation", "next_offset", "log_begin", "log_end", "lag", "watermark")


class _OffsetsGroup(DefaultVerbGroup):
    default_verb = "show"


@click.group(name="offsets", cls=_OffsetsGroup)
def command() -> None:
    """Show or reset the positions of a stream."""


@command.command(name="show")
@click.argument("stream")
@format_option
@click.pass_context
def show(ctx: click.Context, stream: str, form: str) -> None:
    """Show the position of every partition of STREAM, and its lag where the log can be reached."""
    settings = load_settings(ctx)
    sources: list[SourceState] = []
    with open_database(settings) as db:
        stored = load_stream_ids(db)
        if has_history(settings, list(stored), stream):
            sources = Ledger(db).active_sources(stored[stream])
        else:
            click.echo(format_no_history(stream), err=True)
    logs = _discover_logs(settings, stream, sources)
    rows = [_build_row(stream, each, logs.get(_to_partition(each))) for each in sources]
    write_rows(rows, COLUMNS, form, shown=_TABLE_COLUMNS, nothing="No positions.")


@command.command(name="reset")
@click.argument("stream")
@click.option("--to", "target", required=True, help="earliest, latest, a time (RFC 3339), 24h ago, or an offset.")
@click.option("--topic", help="Reset only this topic.")
@click.option("--partition", type=click.IntRange(min=0), help="Reset only this partition.")
@click.option("--dry-run", is_flag=True, help="Print the new positions without setting them.")
@click.pass_context
def reset(
    ctx: click.Context, stream: str, target: str, topic: str | None, partition: int | None, dry_run: bool
) -> None:
    """Reset the positions of STREAM: start a new incarnation of each partition and keep the old rows.

    Events read before are read, scored and stored again under the new incarnation. In sealed windows they count as
    late. A running daemon continues from the new positions.
    """
    settings = load_settings(ctx)
    require_stream(settings, stream)
    with Database(settings.database.url) as db:
        db.check_schema()
        stream_id = load_stream_ids(db).get(stream)
        sources = [] if stream_id is None else Ledger(db).active_sources(stream_id)
        if stream_id is None or not sources:
            raise ConfigError(f"stream {stream} has no positions yet; `source.start` sets the start of its first run")
        chosen = _select_positions(stream, sources, topic, partition)
        with closing(_open_stream_source(settings, stream, sources)) as source:
            new_sources = _resolve_positions(source, chosen, target)
        if not dry_run:
            Ledger(db).restart_sources(stream_id, new_sources)
    for old, new in zip(chosen, new_sources, strict=True):
        verb = "would go" if dry_run else "goes"
        click.echo(
            f"{_to_partition(new)} {verb} from offset {old.next_offset:,} (incarnation {old.incarnation}) "
            f"to offset {new.next_offset:,} (incarnation {old.incarnation + 1})"
        )


def _open_stream_source(settings: Settings, stream: str, sources: Sequence[SourceState]) -> Source:
    identity = sources[0].identity if sources else None
    stream_settings = settings.streams[stream].source
    if isinstance(stream_settings, FileSourceSettings) and stream_settings.is_stdin:
        raise ConfigError(f"stream {stream} reads standard input, which cannot be read again")
    return open_source(stream, settings, group=False, identity=identity)


def _discover_logs(settings: Settings, stream: str, sources: Sequence[SourceState]) -> dict[Partition, PartitionInfo]:
    """Return the log ranges of the stream's partitions; empty with a message when the source is not available."""
    if stream not in settings.streams or not sources:
        return {}
    try:
        with closing(_open_stream_source(settings, stream, sources)) as source:
            return {each.partition: each for each in source.discover()}
    except (BrokerUnavailable, ConfigError) as error:
        click.echo(f"Cannot show the ends of the log: {error}", err=True)
        return {}


def _build_row(stream: str, state: SourceState, found: PartitionInfo | None) -> dict[str, Any]:
    other = found is not None and found.identity != state.identity
    return {
        "stream": stream,
        "topic": state.topic,
        "partition": state.partition,
        "incarnation": state.incarnation,
        "next_offset": state.next_offset,
        "log_begin": None if found is None else found.begin,
        "log_end": None if found is None else found.end,
        # The offsets of a re-created log are not comparable.
        "lag": None if found is None or other else max(0, found.end - state.next_offset),
        "watermark": format_optional_time(state.watermark_us),
        "last_commit": format_optional_time(state.committed_at_us),
        "owner": state.owner,
    }


def _to_partition(state: SourceState | NewSource) -> Partition:
    return Partition(topic=state.topic, partition=state.partition)


def _select_positions(
    stream: str, sources: Sequence[SourceState], topic: str | None, partition: int | None
) -> list[SourceState]:
    chosen = [
        each for each in sources if topic in (None, each.topic) and (partition is None or partition == each.partition)
    ]
    if not chosen:
        available = ", ".join(str(_to_partition(each)) for each in sources)
        raise ConfigError(f"stream {stream} has no such partition; it has {available}")
    return chosen


def _resolve_positions(source: Source, chosen: Sequence[SourceState], target: str) -> list[NewSource]:
    """Resolve the target to new positions.

    Raises:
        ConfigError: A partition does not exist in the source.
        click.BadParameter: The target is not valid or outside of the log.
    """
    wanted = {_to_partition(each) for each in chosen}
    found = [each for each in source.discover() if each.partition in wanted]
    missing = wanted - {each.partition for each in found}
    if missing:
        raise ConfigError(f"{', '.join(sorted(map(str, missing)))} does not exist in the source; nothing was changed")
    if target.isdecimal():
        positions = {each.partition: _check_offset(each, int(target), len(found)) for each in found}
    else:
        try:
            start = parse_start_position(target).resolve(time.time_ns() // 1_000)
        except ValueError as error:
            raise click.BadParameter(f"{error}, or an offset", param_hint="--to") from error
        positions = {each: at.next_offset for each, at in source.resolve(start, found).items()}
    identities = {each.partition: each.identity for each in found}
    return [
        NewSource(
            topic=each.topic,
            partition=each.partition,
            identity=identities[_to_partition(each)],
            next_offset=positions[_to_partition(each)],
        )
        for each in chosen
    ]


def _check_offset(found: PartitionInfo, offset: int, partitions: int) -> int:
    if partitions > 1:
        raise click.BadParameter(
            f"an offset applies to one partition, but {partitions} are selected; choose one with --partition and "
            "--topic",
            param_hint="--to",
        )
    if not found.begin <= offset <= found.end:
        raise click.BadParameter(
            f"{found.partition} has offsets {found.begin:,} to {found.end:,}; {offset:,} is outside",
            param_hint="--to",
        )
    return offset
