"""`outrider models`: the models of a stream; promote one, roll back, ask the gate, or import one from a file."""

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from config.errors import ConfigError, ModelError
from config.settings import Settings, StreamSettings
from config.units import format_time, to_us
from monitor.cli.command_group import DefaultVerbGroup
from monitor.cli.database import format_no_history, has_history, open_database
from monitor.cli.output.tables import format_option, format_value, resolve_format, write_rows
from monitor.cli.settings import load_settings, require_stream
from storage.control.models import Activation, ModelInfo, ModelStore
from storage.control.shadows import ShadowStore
from storage.control.thresholds import NewThreshold, ThresholdStore
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
def list_models(ctx: click.Context, stream: str, form: str | None) -> None:
    """List the models of STREAM, oldest first."""
    settings = load_settings(ctx)
    with open_database(settings) as db:
        stored = load_stream_ids(db)
        known: list[ModelInfo] = []
        verdicts: dict[int, Mapping[str, Any]] = {}
        if has_history(settings, list(stored), stream):
            known = ModelStore(db).list(stored[stream])
            verdicts = ShadowStore(db).verdicts(stored[stream])
        else:
            click.echo(format_no_history(stream), err=True)
    rows = [_build_row(stream, model, verdicts.get(model.id)) for model in known]
    write_rows(rows, COLUMNS, resolve_format(form), shown=_TABLE_COLUMNS, nothing="No models.")


@command.command(name="promote")
@click.argument("stream")
@click.argument("version", type=int)
@click.option("--force", is_flag=True, help="Promote it whatever the gate says, or has said.")
@click.pass_context
def promote(ctx: click.Context, stream: str, version: int, force: bool) -> None:
    """Make VERSION the active model of STREAM from the next free window on.

    A model in the shadow has to hold the active one's likelihood and alert volume first (`models gate`); a candidate
    that did not hold them is refused.
    """
    settings = load_settings(ctx)
    require_stream(settings, stream)
    with Database(settings.database.url) as db:
        db.check_schema()
        known = _load_models(db, stream)
        chosen = _find_version(stream, version, known)
        _require_same_features(stream, chosen, known)
        if not force:
            _require_gate(db, settings, stream, chosen)
        model = _build_promoter(db, settings, stream).promote(chosen.id)
    click.echo(f"Stream {stream}: model {model.version} ({model.kind}) is active, {_format_valid_from(model)}.")


@command.command(name="rollback")
@click.argument("stream")
@click.pass_context
def rollback(ctx: click.Context, stream: str) -> None:
    """Make the model of STREAM active again that was active before the present one."""
    settings = load_settings(ctx)
    require_stream(settings, stream)
    with Database(settings.database.url) as db:
        db.check_schema()
        retired = [model for model in _load_models(db, stream) if model.state == "retired"]
        if not retired:
            raise ConfigError(f"stream {stream} had no other active model before: there is nothing to roll back to")
        before = max(retired, key=lambda model: (model.valid_from_us or 0, model.version))
        model = _build_promoter(db, settings, stream).promote(before.id)
    click.echo(f"Stream {stream}: model {model.version} ({model.kind}) is active again, {_format_valid_from(model)}.")


@command.command(name="gate")
@click.argument("stream")
@click.pass_context
def gate(ctx: click.Context, stream: str) -> None:
    """Say whether the model in the shadow of STREAM's active one would be promoted, and why."""
    settings = load_settings(ctx)
    require_stream(settings, stream)
    with Database(settings.database.url) as db:
        db.check_schema()
        in_shadow = [model for model in _load_models(db, stream) if model.state == "shadow"]
        if not in_shadow:
            raise ConfigError(f"stream {stream} has no model in the shadow; `outrider fit {stream} --shadow` makes one")
        verdict = _evaluate_shadow(db, settings, stream)
    word = {None: "has too little to tell", True: "holds", False: "does not hold"}[verdict.holds]
    click.echo(f"Stream {stream}: model {in_shadow[-1].version} {word}: {verdict.reason}.")
    for name, number in verdict.numbers.items():
        click.echo(f"  {name.replace('_', ' '):20} {format_value(number)}")


def _load_models(db: Database, stream: str) -> list[ModelInfo]:
    stream_id = load_stream_ids(db).get(stream)
    return [] if stream_id is None else ModelStore(db).list(stream_id)


def _build_promoter(db: Database, settings: Settings, stream: str) -> "Promoter":
    from monitor.daemon.rules import build_promotion_rule
    from monitor.models.promotion import Promoter
    from monitor.models.scoring import load_model

    def reference(model_id: int) -> NDArray[np.float32]:
        energies = load_model(ModelStore(db).load(model_id), "cpu").detector.reference_energies_
        assert energies is not None, "load_model refuses a model without them"
        return np.sort(energies)

    return Promoter(
        build_promotion_rule(settings, stream, load_stream_ids(db)[stream]),
        shadows=ShadowStore(db),
        models=ModelStore(db),
        calibration=ThresholdStore(db),
        reference=reference,
    )


def _evaluate_shadow(db: Database, settings: Settings, stream: str) -> "GateVerdict":
    shadow = ShadowStore(db).current(load_stream_ids(db)[stream])
    assert shadow is not None, "a model in the state shadow has its row"
    return _build_promoter(db, settings, stream).evaluate(shadow)


def _require_gate(db: Database, settings: Settings, stream: str, chosen: ModelInfo) -> None:
    """Raise ModelError, and keep the reason with the model, unless it holds or was never in the shadow."""
    if chosen.state != "shadow":
        said = ShadowStore(db).verdicts(load_stream_ids(db)[stream]).get(chosen.id)
        if chosen.state == "candidate" and said is not None and said["holds"] is False:
            raise ModelError(
                f"model {chosen.version} of stream {stream} stays a candidate: {said['reason']} "
                "(--force promotes it all the same)"
            )
        return
    verdict = _evaluate_shadow(db, settings, stream)
    ShadowStore(db).store_verdict(chosen.id, {"holds": verdict.holds, "reason": verdict.reason, **verdict.numbers})
    if not verdict.holds:
        raise ModelError(
            f"model {chosen.version} of stream {stream} stays in the shadow: {verdict.reason} "
            "(--force promotes it all the same)"
        )


@command.command(name="import")
@click.argument("stream")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_context
def import_model(ctx: click.Context, stream: str, file: Path) -> None:
    """Store the model of FILE for STREAM and make it active; the first one needs no warm-up."""
    settings = load_settings(ctx)
    own = settings.streams[require_stream(settings, stream)]
    from monitor.detectors import load_detector
    from monitor.models.fitting import prepare_imported_model
    from storage.database.migrations.upgrade import upgrade

    detector = load_detector(file)
    with Database(settings.database.url) as db:
        upgrade(db)
        store = ModelStore(db)
        active = _load_active_model(db, stream)
        named = () if own.event.features == "auto" else tuple(own.event.features)
        fitted = prepare_imported_model(detector, named if active is None else active.feature_names)
        stream_id = _open_stream(db, stream, own)
        model = store.add(stream_id, fitted.stored, _make_first_threshold(fitted.reference, own))
    assert model is not None, "only a warm-up stores nothing where there is a model"
    click.echo(
        f"Stream {stream}: model {model.version} ({model.kind}) is stored and active, {_format_valid_from(model)}."
    )


def _build_row(stream: str, model: ModelInfo, verdict: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "stream": stream,
        "version": model.version,
        "kind": model.kind,
        "state": model.state,
        "created_at": format_time(model.created_at_us),
        "valid_from": None if model.valid_from_us is None else format_time(model.valid_from_us),
        "events": model.summary.get("events"),
        "features": list(model.feature_names),
        "gate": None if verdict is None else verdict["reason"],
        "summary": dict(model.summary),
    }


def _find_version(stream: str, version: int, known: list[ModelInfo]) -> ModelInfo:
    found = next((model for model in known if model.version == version), None)
    if found is None:
        versions = [str(model.version) for model in known]
        near = difflib.get_close_matches(str(version), versions, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(versions) or 'none'}"
        raise ConfigError(f"stream {stream} has no model {version}; {hint}")
    if found.state == "active":
        raise ModelError(f"model {version} is the active one of stream {stream} already; nothing was changed")
    return found


def _require_same_features(stream: str, chosen: ModelInfo, known: list[ModelInfo]) -> None:
    active = next((model for model in known if model.state == "active"), None)
    if active is not None and active.feature_names != chosen.feature_names:
        raise ModelError(
            f"model {chosen.version} has the features {', '.join(chosen.feature_names)}, the active one of stream "
            f"{stream} has {', '.join(active.feature_names)}: a stream keeps its features; make another stream"
        )


def _make_first_threshold(
    reference: NDArray[np.float32], own: StreamSettings
) -> Callable[[int, Activation], NewThreshold]:
    from monitor.thresholds.tick import build_first_threshold

    rule = own.threshold
    return lambda model_id, activation: build_first_threshold(
        reference, model_id, activation, rule.percentile, rule.method
    )


def _load_active_model(db: Database, stream: str) -> ModelInfo | None:
    stream_id = load_stream_ids(db).get(stream)
    return None if stream_id is None else ModelStore(db).active(stream_id)


def _open_stream(db: Database, stream: str, own: StreamSettings) -> int:
    """Return the stream's id; one that was never run gets its row as the daemon would make it."""
    known = load_stream_ids(db).get(stream)
    if known is not None:
        return known
    window = own.window
    state = Ledger(db).open_stream(
        stream, window_size_us=to_us(window.size), lead_us=to_us(window.grace) + to_us(window.ahead)
    )
    return state.id


def _format_valid_from(model: ModelInfo) -> str:
    if not model.valid_from_us:
        return "from the first event on"
    return f"for windows from {format_time(model.valid_from_us)} on"
