"""`outrider offsets`: the positions of a stream, which live in SQL; show them, or set them anew."""

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import click

from config.errors import BrokerUnavailable, ConfigError
from config.settings import Settings
from config.sources import FileSourceSettings, parse_start_position
from config.units import format_time
from consumers.batch import Partition
from consumers.open import open_source
from consumers.source import PartitionInfo, Source
from monitor.cli.command_group import DefaultVerbGroup
from monitor.cli.database import format_no_history, has_history, open_database
from monitor.cli.output.tables import format_option, resolve_format, write_rows
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
    """Show the positions of a stream, or set them anew."""


@command.command(name="show")
@click.argument("stream")
@format_option
@click.pass_context
def show(ctx: click.Context, stream: str, form: str | None) -> None:
    """Show the position of every partition of STREAM, and how far the log is ahead where it can be reached."""
    settings = load_settings(ctx)
    known: list[SourceState] = []
    with open_database(settings) as db:
        stored = load_stream_ids(db)
        if has_history(settings, list(stored), stream):
            known = Ledger(db).active_sources(stored[stream])
        else:
            click.echo(format_no_history(stream), err=True)
    logs = _discover_logs(settings, stream, known)
    rows = [_build_row(stream, each, logs.get(_to_partition(each))) for each in known]
    write_rows(rows, COLUMNS, resolve_format(form), shown=_TABLE_COLUMNS, nothing="No positions.")


@command.command(name="reset")
@click.argument("stream")
@click.option("--to", "target", required=True, help="earliest, latest, a time (RFC 3339), 24h ago, or an offset.")
@click.option("--topic", help="Only this topic.")
@click.option("--partition", type=click.IntRange(min=0), help="Only this partition.")
@click.option("--dry-run", is_flag=True, help="Say what would be set, and set nothing.")
@click.pass_context
def reset(
    ctx: click.Context, stream: str, target: str, topic: str | None, partition: int | None, dry_run: bool
) -> None:
    """Set the positions of STREAM: a new incarnation of each partition begins, and the old rows stay.

    Events that were read before are read again, scored and stored under the new incarnation; in windows that are
    sealed they count as late. A running daemon goes on from the new position by itself.
    """
    settings = load_settings(ctx)
    require_stream(settings, stream)
    with Database(settings.database.url) as db:
        db.check_schema()
        stream_id = load_stream_ids(db).get(stream)
        known = [] if stream_id is None else Ledger(db).active_sources(stream_id)
        if stream_id is None or not known:
            raise ConfigError(f"stream {stream} has no positions yet; `source.start` says where its first run begins")
        chosen = _select_positions(stream, known, topic, partition)
        with closing(_open_stream_source(settings, stream, known)) as source:
            begun = _resolve_positions(source, chosen, target)
        if not dry_run:
            Ledger(db).restart_sources(stream_id, begun)
    for old, new in zip(chosen, begun, strict=True):
        verb = "would go" if dry_run else "goes"
        click.echo(
            f"{_to_partition(new)} {verb} from offset {old.next_offset:,} (incarnation {old.incarnation}) "
            f"to offset {new.next_offset:,} (incarnation {old.incarnation + 1})"
        )


def _open_stream_source(settings: Settings, stream: str, known: Sequence[SourceState]) -> Source:
    identity = known[0].identity if known else None
    own = settings.streams[stream].source
    if isinstance(own, FileSourceSettings) and own.is_stdin:
        raise ConfigError(f"stream {stream} reads standard input, which has no positions to go back to")
    return open_source(stream, settings, group=False, identity=identity)


def _discover_logs(settings: Settings, stream: str, known: Sequence[SourceState]) -> dict[Partition, PartitionInfo]:
    """Return the logs of the stream; what cannot be asked is left out, and said."""
    if stream not in settings.streams or not known:
        return {}
    try:
        with closing(_open_stream_source(settings, stream, known)) as source:
            return {each.partition: each for each in source.discover()}
    except (BrokerUnavailable, ConfigError) as away:
        click.echo(f"The ends of the log are not shown: {away}", err=True)
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
        # Offsets of another log under the same name mean nothing in this one.
        "lag": None if found is None or other else max(0, found.end - state.next_offset),
        "watermark": None if state.watermark_us is None else format_time(state.watermark_us),
        "last_commit": None if state.committed_at_us is None else format_time(state.committed_at_us),
        "owner": state.owner,
    }


def _to_partition(state: SourceState | NewSource) -> Partition:
    return Partition(topic=state.topic, partition=state.partition)


def _select_positions(
    stream: str, known: Sequence[SourceState], topic: str | None, partition: int | None
) -> list[SourceState]:
    chosen = [
        each for each in known if topic in (None, each.topic) and (partition is None or partition == each.partition)
    ]
    if not chosen:
        there = ", ".join(str(_to_partition(each)) for each in known)
        raise ConfigError(f"stream {stream} has no such partition; it has {there}")
    return chosen


def _resolve_positions(source: Source, chosen: Sequence[SourceState], target: str) -> list[NewSource]:
    """Return the new positions, all of them inside their logs."""
    wanted = {_to_partition(each) for each in chosen}
    found = [each for each in source.discover() if each.partition in wanted]
    missing = wanted - {each.partition for each in found}
    if missing:
        raise ConfigError(f"{', '.join(sorted(map(str, missing)))} is not there now; nothing was set")
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
            f"an offset is one partition's, and {partitions} are meant; name one by --partition and --topic",
            param_hint="--to",
        )
    if not found.begin <= offset <= found.end:
        raise click.BadParameter(
            f"{found.partition} has the offsets {found.begin:,} to {found.end:,}; {offset:,} is outside",
            param_hint="--to",
        )
    return offset
