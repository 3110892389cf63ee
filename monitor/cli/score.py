"""`outrider score`: write the energies of a file's events under the active model; store nothing."""

import csv
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from monitor.cli.settings import load_settings, require_stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from config.settings import Settings
    from consumers.batch import RawBatch
    from consumers.discovery.rejections import RejectionCounts
    from consumers.files.source import FileSource
    from storage.control.models import ModelRecord
    from storage.database.engine import Database


@click.command(name="score")
@click.argument("stream")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Write to this file (default: standard output).")
@click.pass_context
def command(ctx: click.Context, stream: str, file: Path, output: Path | None) -> None:
    """Write a CSV row (row, energy, is_outlier) for each event of FILE, scored with STREAM's active model."""
    settings = load_settings(ctx)
    name = require_stream(settings, stream)
    if output is None:
        rejected = _score_file(settings, name, file, sys.stdout)
    else:
        with output.open("w", newline="") as target:
            rejected = _score_file(settings, name, file, target)
    if rejected.n_rejected:
        from monitor.cli.output.tables import escape_unprintable
        from monitor.models.warm_up_progress import format_rejections

        reasons = escape_unprintable(format_rejections(rejected.groups()))
        click.echo(
            f"outrider: {rejected.n_rejected:,} records of {file} are not events and have no row: {reasons}", err=True
        )


def _score_file(settings: "Settings", name: str, file: Path, target: IO[str]) -> "RejectionCounts":
    """Score the file batch by batch and return the counts of rejected records."""
    from config.units import to_us
    from consumers.codec import make_codec
    from consumers.discovery.rejections import RejectionCounts
    from consumers.files.source import FileSource
    from monitor.models.scoring import Scorer, load_model, pick_device
    from monitor.pipeline.key_states import KeyedSource
    from monitor.statistics.key_states import FieldHistory
    from storage.control.models import ModelStore
    from storage.database.engine import Database

    stream_settings = settings.streams[name]
    with Database(settings.database.url, read_only=settings.database.url.startswith("sqlite")) as db:
        db.check_schema()
        model, threshold = _load_active_model(db, name)
        models = ModelStore(db)
        device = pick_device(settings.device)
        scorer = Scorer(lambda model_id: load_model(*models.load(model_id), device))
        source = FileSource(file, max_event_bytes=stream_settings.event.max_size)
        event = stream_settings.event.model_copy(update={"format": "json"})
        codec = make_codec(
            event, model.feature_names, layout=source.layout, max_future_us=to_us(stream_settings.window.max_future)
        )
        rows = csv.writer(target, lineterminator="\n")
        rows.writerow(["row", "energy", "is_outlier"])
        rejected = RejectionCounts(event, model.feature_names)
        keyed = KeyedSource.from_rows([], FieldHistory(n_fields=len(model.feature_names)))
        derives = load_model(*models.load(model.id), device).derivation is not None
        try:
            for raw in _read_batches(source):
                _check_columns(file, raw, model.feature_names)
                decoded = codec.decode(raw, time.time_ns() // 1_000)
                events = decoded.events
                if derives and len(events):
                    events, changed = keyed.derive(events)
                    keyed = keyed.after(changed)
                energies = scorer.energies(events.features, model.id)
                outliers = energies > threshold
                rows.writerows(
                    zip(events.offsets.tolist(), map(repr, energies.tolist()), map(int, outliers), strict=True)
                )
                rejected.add(raw, decoded.dead_letters)
        finally:
            source.close()
    return rejected


def _check_columns(file: Path, raw: "RawBatch", features: "Sequence[str]") -> None:
    """Check that a table has the model's columns; otherwise every row would be rejected."""
    from consumers.batch import Table
    from consumers.codecs.table import check_columns

    if isinstance(raw.values, Table) and raw.begin == 0:
        check_columns(list(raw.values.columns), [(f"{file}", name) for name in features])


def _read_batches(source: "FileSource") -> "Iterator[RawBatch]":
    """Yield all batches of a file."""
    starts = source.resolve("earliest", source.discover())
    ended = False
    while not ended:
        polled = source.poll(0.25)
        for partition in polled.assigned:
            source.seek(partition, starts[partition])
        yield from polled.batches
        ended = bool(polled.ended)


def _load_active_model(db: "Database", name: str) -> "tuple[ModelRecord, float]":
    """Return the stream's active model and its newest threshold."""
    from config.errors import ConfigError
    from storage.control.models import ModelStore
    from storage.control.thresholds import ThresholdStore
    from storage.ledger.ledger import Ledger

    stream_id = Ledger(db).find_stream(name)
    model = None if stream_id is None else ModelStore(db).active(stream_id)
    newest = None if stream_id is None else ThresholdStore(db).newest_threshold(stream_id)
    if model is None or newest is None:
        raise ConfigError(f"stream {name} has no model yet: fit one with `outrider fit {name} FILE`, or run the daemon")
    return model, newest.threshold
