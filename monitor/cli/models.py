"""`outrider models`: list, promote, roll back or import models of a stream, or evaluate the promotion gate."""

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from config.errors import ConfigError, ModelError
from config.settings import Settings, StreamSettings
from config.time_format import format_optional_time, format_time
from config.units import to_us
from monitor.cli.command_group import DefaultVerbGroup
from monitor.cli.database import format_no_history, has_history, open_database
from monitor.cli.output.tables import format_option, format_value, write_rows
from monitor.cli.settings import load_settings, require_stream
from storage.control.models import Activation, ModelRecord, ModelStore
from storage.control.settings import SettingsStore
from storage.control.shadows import ShadowStore
from storage.control.thresholds import ThresholdRow, ThresholdStore
from storage.database.engine import Database
from storage.ledger.ledger import Ledger
from storage.queries.status import load_stream_ids

if TYPE_CHECKING:
    from monitor.models.promotion import Promoter
    from monitor.models.shadow_gate import GateVerdict

COLUMNS = ("stream", "version", "kind", "state", "created_at", "valid_from", "events", "features", "gate", "summary")
_TABLE_COLUMNS = ("version", "state", "kind", "valid_from", "events", "features", "gate")


@click.group(name="models", cls=DefaultVerbGroup)
def command() -> None:
    """List, promote or import a stream's models."""


@command.command(name="list")
@click.argument("stream")
@format_option
@click.pass_context
def list_models(ctx: click.Context, stream: str, form: str) -> None:
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
    settings = load_settings(ctx)
    require_stream(settings, stream)
    with Database(settings.database.url) as db:
        db.check_schema()
        models = _load_models(db, stream)
        chosen = _find_version(stream, version, models)
        _require_same_features(stream, chosen, models)
        if not force:
            _require_gate(db, settings, stream, chosen)
        model = _build_promoter(db, settings, stream).promote(chosen.id)
    click.echo(f"Stream {stream}: model {model.version} ({model.kind}) is active, {_format_valid_from(model)}.")


@command.command(name="rollback")
@click.argument("stream")
@click.pass_context
def rollback(ctx: click.Context, stream: str) -> None:
    """Make STREAM's previously active model active again."""
    settings = load_settings(ctx)
    require_stream(settings, stream)
    with Database(settings.database.url) as db:
        db.check_schema()
        retired = [model for model in _load_models(db, stream) if model.state == "retired"]
        if not retired:
            raise ConfigError(f"stream {stream} has no previously active model to roll back to")
        before = max(retired, key=lambda model: (model.valid_from_us or 0, model.version))
        model = _build_promoter(db, settings, stream).promote(before.id)
    click.echo(f"Stream {stream}: model {model.version} ({model.kind}) is active again, {_format_valid_from(model)}.")


@command.command(name="gate")
@click.argument("stream")
@click.pass_context
def gate(ctx: click.Context, stream: str) -> None:
    """Evaluate the promotion gate for STREAM's shadow model and print the reason."""
    settings = load_settings(ctx)
    require_stream(settings, stream)
    with Database(settings.database.url) as db:
        db.check_schema()
        in_shadow = [model for model in _load_models(db, stream) if model.state == "shadow"]
        if not in_shadow:
            raise ConfigError(f"stream {stream} has no shadow model; `outrider fit {stream} --shadow` creates one")
        verdict = _evaluate_shadow(db, settings, stream)
    word = {None: "is undecided", True: "passes the gate", False: "fails the gate"}[verdict.holds]
    click.echo(f"Stream {stream}: model {in_shadow[-1].version} {word}: {verdict.reason}.")
    for name, number in verdict.numbers.items():
        click.echo(f"  {name.replace('_', ' '):20} {format_value(number)}")


def _load_models(db: Database, stream: str) -> list[ModelRecord]:
    stream_id = load_stream_ids(db).get(stream)
    return [] if stream_id is None else ModelStore(db).list(stream_id)


def _build_promoter(db: Database, settings: Settings, stream: str) -> "Promoter":
    from monitor.daemon.rules import build_rule_schedule, build_stream_rules
    from monitor.daemon.stored_sizes import follow_stored_sizes
    from monitor.models.promotion import Promoter
    from monitor.models.scoring import load_model

    def reference(model_id: int) -> NDArray[np.float32]:
        return load_model(*ModelStore(db).load(model_id), "cpu").reference

    stream_id = load_stream_ids(db)[stream]
    rows = SettingsStore(db).read_rows(stream_id)
    return Promoter(
        build_stream_rules(follow_stored_sizes(db, settings), stream),
        stream_id,
        shadows=ShadowStore(db),
        models=ModelStore(db),
        thresholds=ThresholdStore(db),
        reference=reference,
        rules_at=build_rule_schedule(settings, stream, rows).at if rows else None,
    )


def _evaluate_shadow(db: Database, settings: Settings, stream: str) -> "GateVerdict":
    shadow = ShadowStore(db).current(load_stream_ids(db)[stream])
    assert shadow is not None, "a model in the state shadow has a shadow row"
    return _build_promoter(db, settings, stream).evaluate(shadow)


def _require_gate(db: Database, settings: Settings, stream: str, chosen: ModelRecord) -> None:
    """Check that a shadow model passes the gate, and store the verdict with the model.

    Raises:
        ModelError: The shadow model does not pass, or the candidate failed the gate earlier.
    """
    if chosen.state != "shadow":
        past_verdict = ShadowStore(db).verdicts(load_stream_ids(db)[stream]).get(chosen.id)
        if chosen.state == "candidate" and past_verdict is not None and past_verdict["holds"] is False:
            raise ModelError(
                f"model {chosen.version} of stream {stream} remains a candidate: {past_verdict['reason']} "
                "(--force promotes it anyway)"
            )
        return
    verdict = _evaluate_shadow(db, settings, stream)
    ShadowStore(db).store_verdict(chosen.id, {"holds": verdict.holds, "reason": verdict.reason, **verdict.numbers})
    if not verdict.holds:
        raise ModelError(
            f"model {chosen.version} of stream {stream} stays the shadow model: {verdict.reason} "
            "(--force promotes it anyway)"
        )


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


def _find_version(stream: str, version: int, models: list[ModelRecord]) -> ModelRecord:
    model = next((model for model in models if model.version == version), None)
    if model is None:
        versions = [str(model.version) for model in models]
        near = difflib.get_close_matches(str(version), versions, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(versions) or 'none'}"
        raise ConfigError(f"stream {stream} has no model {version}; {hint}")
    if model.state == "active":
        raise ModelError(f"model {version} is already the active model of stream {stream}; nothing was changed")
    return model


def _require_same_features(stream: str, chosen: ModelRecord, models: list[ModelRecord]) -> None:
    active = next((model for model in models if model.state == "active"), None)
    if active is not None and active.feature_names != chosen.feature_names:
        raise ModelError(
            f"model {chosen.version} has the features {', '.join(chosen.feature_names)}, the active model of stream "
            f"{stream} has {', '.join(active.feature_names)}: all models of a stream have the same features; create "
            "another stream for other features"
        )


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
