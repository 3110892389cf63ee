"""`outrider models`: the models of a stream; promote one, or import one from a file."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from config.errors import ConfigError, ModelError
from config.settings import StreamSettings
from config.units import format_time, to_us
from monitor.cli.nouns import Noun
from monitor.cli.settings import settings_of, stream_of
from monitor.cli.stored import database_of, is_stored, not_yet
from monitor.cli.tables import format_of, format_option, write
from storage.calibration import NewThreshold
from storage.engine import Database
from storage.ledger import Ledger
from storage.models import Activation, ModelInfo, ModelStore
from storage.standing import stream_ids

COLUMNS = ("stream", "version", "kind", "state", "created_at", "valid_from", "events", "features", "summary")
_SHOWN = ("version", "state", "kind", "valid_from", "events", "features")


@click.group(name="models", cls=Noun)
def command() -> None:
    """List, promote or import a stream's models."""


@command.command(name="list")
@click.argument("stream")
@format_option
@click.pass_context
def list_models(ctx: click.Context, stream: str, form: str | None) -> None:
    """List the models of STREAM, oldest first."""
    settings = settings_of(ctx)
    with database_of(settings) as db:
        stored = stream_ids(db)
        known: list[ModelInfo] = []
        if is_stored(settings, list(stored), stream):
            known = ModelStore(db).list(stored[stream])
        else:
            click.echo(not_yet(stream), err=True)
    rows = [_row(stream, model) for model in known]
    write(rows, COLUMNS, format_of(form), shown=_SHOWN, nothing="No models.")


@command.command(name="promote")
@click.argument("stream")
@click.argument("version", type=int)
@click.pass_context
def promote(ctx: click.Context, stream: str, version: int) -> None:
    """Make VERSION the active model of STREAM from the next free window on."""
    settings = settings_of(ctx)
    own = settings.streams[stream_of(settings, stream)]
    with Database(settings.database.url) as db:
        db.check()
        stream_id, store = stream_ids(db).get(stream), ModelStore(db)
        known = [] if stream_id is None else store.list(stream_id)
        chosen = _version(stream, version, known)
        _refuse_other_features(stream, chosen, known)
        from monitor.scoring import load_model

        reference = load_model(Ledger(db).model(chosen.id), "cpu").detector.reference_energies_
        assert reference is not None, "load_model refuses a model without them"
        assert stream_id is not None, "a stream without a row has no version to promote"
        model = store.promote(stream_id, chosen.id, _first_threshold(np.sort(reference), own))
    click.echo(f"Stream {stream}: model {model.version} ({model.kind}) is active, {_from(model)}.")


@command.command(name="import")
@click.argument("stream")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_context
def import_model(ctx: click.Context, stream: str, file: Path) -> None:
    """Store the model of FILE for STREAM and make it active; the first one needs no warm-up."""
    settings = settings_of(ctx)
    own = settings.streams[stream_of(settings, stream)]
    from monitor.detectors import load_detector
    from monitor.fitting import model_of

    detector = load_detector(file)
    with Database(settings.database.url) as db:
        db.upgrade()
        store = ModelStore(db)
        active = _active(db, stream)
        named = () if own.event.features == "auto" else tuple(own.event.features)
        fitted = model_of(detector, named if active is None else active.feature_names)
        stream_id = _open_stream(db, stream, own)
        model = store.add(stream_id, fitted.stored, _first_threshold(fitted.reference, own))
    assert model is not None, "only a warm-up stores nothing where there is a model"
    click.echo(f"Stream {stream}: model {model.version} ({model.kind}) is stored and active, {_from(model)}.")


def _row(stream: str, model: ModelInfo) -> dict[str, Any]:
    return {
        "stream": stream,
        "version": model.version,
        "kind": model.kind,
        "state": model.state,
        "created_at": format_time(model.created_at_us),
        "valid_from": None if model.valid_from_us is None else format_time(model.valid_from_us),
        "events": model.summary.get("events"),
        "features": list(model.feature_names),
        "summary": dict(model.summary),
    }


def _version(stream: str, version: int, known: list[ModelInfo]) -> ModelInfo:
    found = next((model for model in known if model.version == version), None)
    if found is None:
        versions = [str(model.version) for model in known]
        near = difflib.get_close_matches(str(version), versions, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(versions) or 'none'}"
        raise ConfigError(f"stream {stream} has no model {version}; {hint}")
    if found.state == "active":
        raise ModelError(f"model {version} is the active one of stream {stream} already; nothing was changed")
    return found


def _refuse_other_features(stream: str, chosen: ModelInfo, known: list[ModelInfo]) -> None:
    active = next((model for model in known if model.state == "active"), None)
    if active is not None and active.feature_names != chosen.feature_names:
        raise ModelError(
            f"model {chosen.version} has the features {', '.join(chosen.feature_names)}, the active one of stream "
            f"{stream} has {', '.join(active.feature_names)}: a stream keeps its features; make another stream"
        )


def _first_threshold(reference: NDArray[np.float32], own: StreamSettings) -> Callable[[int, Activation], NewThreshold]:
    from monitor.calibration import first_threshold

    rule = own.threshold
    return lambda model_id, activation: first_threshold(reference, model_id, activation, rule.percentile, rule.method)


def _active(db: Database, stream: str) -> ModelInfo | None:
    stream_id = stream_ids(db).get(stream)
    return None if stream_id is None else ModelStore(db).active(stream_id)


def _open_stream(db: Database, stream: str, own: StreamSettings) -> int:
    """Return the stream's id; one that was never run gets its row as the daemon would make it."""
    known = stream_ids(db).get(stream)
    if known is not None:
        return known
    window = own.window
    state = Ledger(db).open_stream(
        stream, window_size_us=to_us(window.size), lead_us=to_us(window.grace) + to_us(window.ahead)
    )
    return state.id


def _from(model: ModelInfo) -> str:
    if not model.valid_from_us:
        return "from the first event on"
    return f"for windows from {format_time(model.valid_from_us)} on"
