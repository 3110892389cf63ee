"""`outrider models`: list, promote, roll back or import models of a stream, or evaluate the promotion gate."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from config.errors import ConfigError
from config.settings import StreamSettings
from config.time_format import format_optional_time, format_time
from config.units import to_us
from monitor.cli.command_group import DefaultVerbGroup
from monitor.cli.database import format_no_history, has_history, open_database
from monitor.cli.output.tables import format_option, format_value, write_rows
from monitor.cli.settings import load_settings, require_stream
from storage.control.models import Activation, ModelRecord, ModelStore
from storage.control.shadows import ShadowStore
from storage.control.thresholds import ThresholdRow
from storage.database.engine import Database
from storage.ledger.ledger import Ledger
from storage.queries.status import load_stream_ids

COLUMNS = ("stream", "version", "kind", "state", "created_at", "valid_from", "events", "features", "gate", "summary")
_TABLE_COLUMNS = ("version", "state", "kind", "valid_from", "events", "features", "gate")


@click.group(name="models", cls=DefaultVerbGroup)
def command() -> None:
    """List, promote or import a stream's models."""


@command.command(name="list")
@click.argument("stream")
@format_option
@click.pass_context
def list_stored(ctx: click.Context, stream: str, form: str) -> None:
    """List the models of STREAM, oldest first."""
    settings = load_settings(ctx)
    with open_database(settings) as db:
        stored = load_stream_ids(db)
        models: list[ModelRecord] = []
        verdicts: dict[int, Mapping[str, Any]] = {}
        if has_history(settings, list(stored), stream):
            models = ModelStore(db).list(stored[stream])
            verdicts = ShadowStore(db).verdicts(stored[stream])
        else:
            click.echo(format_no_history(stream), err=True)
    rows = [_build_row(stream, model, verdicts.get(model.id)) for model in models]
    write_rows(rows, COLUMNS, form, shown=_TABLE_COLUMNS, nothing="No models.")


@command.command(name="promote")
@click.argument("stream")
@click.argument("version", type=int)
@click.option("--force", is_flag=True, help="Promote it without a passed gate.")
@click.pass_context
def promote(ctx: click.Context, stream: str, version: int, force: bool) -> None:
    """Make VERSION the active model of STREAM from the next free window on.

    A shadow model must first match the active model's likelihood and alert volume (`models gate`). A candidate that
    failed the gate is rejected.
    """
    from monitor.daemon.model_changes import promote_version

    settings = load_settings(ctx)
    require_stream(settings, stream)
    with Database(settings.database.url) as db:
        db.check_schema()
        model = promote_version(db, settings, stream, version, force=force)
    click.echo(f"Stream {stream}: model {model.version} ({model.kind}) is active, {_format_valid_from(model)}.")


@command.command(name="rollback")
@click.argument("stream")
@click.pass_context
def rollback(ctx: click.Context, stream: str) -> None:
    """Make STREAM's previously active model active again."""
    from monitor.daemon.model_changes import roll_back

    settings = load_settings(ctx)
    require_stream(settings, stream)
    with Database(settings.database.url) as db:
        db.check_schema()
        model = roll_back(db, settings, stream)
    click.echo(f"Stream {stream}: model {model.version} ({model.kind}) is active again, {_format_valid_from(model)}.")


@command.command(name="gate")
@click.argument("stream")
@click.pass_context
def gate(ctx: click.Context, stream: str) -> None:
    """Evaluate the promotion gate for STREAM's shadow model and print the reason."""
    from monitor.daemon.model_changes import evaluate_shadow, list_models

    settings = load_settings(ctx)
    require_stream(settings, stream)
    with Database(settings.database.url) as db:
        db.check_schema()
        in_shadow = [model for model in list_models(db, stream) if model.state == "shadow"]
        if not in_shadow:
            raise ConfigError(f"stream {stream} has no shadow model; `outrider fit {stream} --shadow` creates one")
        verdict = evaluate_shadow(db, settings, stream)
    word = {None: "is undecided", True: "passes the gate", False: "fails the gate"}[verdict.holds]
    click.echo(f"Stream {stream}: model {in_shadow[-1].version} {word}: {verdict.reason}.")
    for name, number in verdict.numbers.items():
        click.echo(f"  {name.replace('_', ' '):20} {format_value(number)}")


@command.command(name="import")
@click.argument("stream")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_context
def import_model(ctx: click.Context, stream: str, file: Path) -> None:
    """Store the model of FILE for STREAM and make it active; the first model replaces the warm-up."""
    settings = load_settings(ctx)
    stream_settings = settings.streams[require_stream(settings, stream)]
    from monitor.daemon.stored_sizes import find_fitted_sizes, follow_stored_sizes
    from monitor.detectors import load_detector
    from monitor.models.fitting import prepare_imported_model
    from storage.database.migrations.upgrade import upgrade

    detector = load_detector(file)
    with Database(settings.database.url) as db:
        upgrade(db)
        store = ModelStore(db)
        active = _load_active_model(db, stream)
        named = () if stream_settings.event.features == "auto" else tuple(stream_settings.event.features)
        fitted = prepare_imported_model(detector, named if active is None else active.feature_names)
        stream_id = _open_stream(db, stream, stream_settings)
        settings = follow_stored_sizes(db, settings)
        find_fitted_sizes(db, settings, stream, stream_id, None)
        stream_settings = settings.streams[stream]
        model = store.add(stream_id, fitted.new_model, _make_first_threshold(fitted.reference, stream_settings))
    assert model is not None, "`add` returns None only with only_first"
    click.echo(
        f"Stream {stream}: model {model.version} ({model.kind}) is stored and active, {_format_valid_from(model)}."
    )


def _build_row(stream: str, model: ModelRecord, verdict: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "stream": stream,
        "version": model.version,
        "kind": model.kind,
        "state": model.state,
        "created_at": format_time(model.created_at_us),
        "valid_from": format_optional_time(model.valid_from_us),
        "events": model.summary.get("events"),
        "features": list(model.feature_names),
        "gate": None if verdict is None else verdict["reason"],
        "summary": dict(model.summary),
    }


def _make_first_threshold(
    reference: NDArray[np.float32], stream_settings: StreamSettings
) -> Callable[[int, Activation], ThresholdRow]:
    from monitor.thresholds.tick import build_first_threshold

    rule = stream_settings.threshold
    return lambda model_id, activation: build_first_threshold(
        reference, model_id, activation, rule.percentile, rule.method
    )


def _load_active_model(db: Database, stream: str) -> ModelRecord | None:
    stream_id = load_stream_ids(db).get(stream)
    return None if stream_id is None else ModelStore(db).active(stream_id)


def _open_stream(db: Database, stream: str, stream_settings: StreamSettings) -> int:
    """Return the stream's id; create the row of a stream that has never run, as the daemon does."""
    models = load_stream_ids(db).get(stream)
    if models is not None:
        return models
    window = stream_settings.window
    state = Ledger(db).open_stream(
        stream, window_size_us=to_us(window.size), lead_us=to_us(window.grace) + to_us(window.ahead)
    )
    return state.id


def _format_valid_from(model: ModelRecord) -> str:
    if not model.valid_from_us:
        return "from the first event on"
    return f"for windows from {format_time(model.valid_from_us)} on"
