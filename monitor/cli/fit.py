"""`outrider fit`: fit a model on a file, or on the stream's own first events, and store it as the active one."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monitor.cli.logs import set_up_logging
from monitor.cli.settings import settings_of, stream_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from config.settings import Settings, StreamSettings
    from consumers.source import Source
    from monitor.training import TrainingSet


@click.command(name="fit")
@click.argument("stream")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--kind", help="Kind of detector (default: model.kind of the configuration).")
@click.option("--n-components", help="Components of the mixture: a number, or auto.")
@click.option("--label", help="Field with the class of each event, for class_conditional.")
@click.pass_context
def command(
    ctx: click.Context, stream: str, file: Path | None, kind: str | None, n_components: str | None, label: str | None
) -> None:
    """Fit on FILE (or on STREAM's own warm-up events) and store the model as STREAM's active one."""
    settings = settings_of(ctx)
    name = stream_of(settings, stream)
    set_up_logging(debug=ctx.obj["debug"])
    own = _with_options(settings.streams[name], kind, n_components)
    training, labels = _read(settings, name, own, file, label)
    _fit_and_store(settings, name, own, training, labels)


def _with_options(settings: "StreamSettings", kind: str | None, n_components: str | None) -> "StreamSettings":
    """Return the stream's settings with what the command line says of the model."""
    from pydantic import ValidationError

    from config.errors import ConfigError
    from config.settings import ModelSettings

    model = settings.model.model_dump()
    if kind is not None:
        model["kind"] = kind
    if n_components is not None:
        model["n_components"] = int(n_components) if n_components.isdigit() else n_components
    try:
        return settings.model_copy(update={"model": ModelSettings.model_validate(model)})
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise ConfigError(f"{option}: {first['msg']}") from None


def _read(
    settings: "Settings", name: str, own: "StreamSettings", file: Path | None, label: str | None
) -> "tuple[TrainingSet, NDArray[Any] | None]":
    """Read the training events, with a bar on a terminal."""
    from config.errors import ConfigError
    from consumers.files import FileSource
    from consumers.open import open_source
    from monitor.fitting import class_labels
    from monitor.registering import register_sources, starts_of
    from monitor.training import TrainingReader

    if label is not None and file is None:
        raise ConfigError("--label needs a FILE whose events carry the field")
    source: Source
    if file is not None:
        source = FileSource(file, max_event_bytes=own.event.max_size)
        starts = source.resolve("earliest", source.discover())
        wanted = None
    else:
        ledger, stream_id = _opened(settings, name)
        source = open_source(name, settings, group=False)
        register_sources(ledger, stream_id, source, own)
        starts = starts_of(ledger, stream_id)
        wanted = own.model.warm_up
    try:
        with _bar("reading events", wanted) as tell:
            reader = TrainingReader(
                source, _in_files_words(own, file), starts, wanted=wanted, features=_named(own, label), label=label
            )
            training = reader.read(stop=lambda: False, deadline_s=None, progress=tell)
    finally:
        source.close()
    assert training is not None, "nobody stops this reader"
    return training, None if label is None else class_labels(training, label)


def _in_files_words(own: "StreamSettings", file: Path | None) -> "StreamSettings":
    """Return the settings for reading a file: its suffix says its format, whatever the stream's records are."""
    if file is None or own.event.format == "json":
        return own
    return own.model_copy(update={"event": own.event.model_copy(update={"format": "json"})})


def _named(own: "StreamSettings", label: str | None) -> tuple[str, ...] | None:
    """Return the named features; a label among them would give the answer away."""
    from config.errors import ConfigError

    if own.event.features == "auto":
        return None
    if label in own.event.features:
        raise ConfigError(f"--label {label}: this field is also in event.features; take it out there")
    return tuple(own.event.features)


def _opened(settings: "Settings", name: str) -> Any:
    """Open the database and the stream in it."""
    from config.units import to_us
    from storage.engine import Database
    from storage.ledger import Ledger

    db = Database(settings.database.url)
    db.upgrade()
    window = settings.streams[name].window
    ledger = Ledger(db)
    state = ledger.open_stream(
        name, window_size_us=to_us(window.size), lead_us=to_us(window.grace) + to_us(window.ahead)
    )
    return ledger, state.id


def _fit_and_store(
    settings: "Settings", name: str, own: "StreamSettings", training: "TrainingSet", labels: "NDArray[Any] | None"
) -> None:
    from monitor.calibration import first_threshold
    from monitor.fitting import fit_model
    from monitor.lives import when
    from storage.engine import Database
    from storage.models import ModelStore

    began_s = time.monotonic()
    with _bar("fitting", None) as tell:
        fitted = fit_model(training, own.model, labels=labels, progress=lambda step, _: tell(step))
    _, stream_id = _opened(settings, name)
    rule = own.threshold
    with Database(settings.database.url) as db:
        stored = ModelStore(db).add(
            stream_id,
            fitted.stored,
            lambda model_id, activation: first_threshold(
                fitted.reference, model_id, activation, rule.percentile, rule.method
            ),
        )
    assert stored is not None, "only a warm-up gives way"
    summary = stored.summary
    click.echo(f"stream {name}: {stored.kind}, version {stored.version}, is active")
    click.echo(f"  events      {len(training):,} ({training.refused:,} records refused)")
    click.echo(f"  features    {len(training.names)}: {', '.join(training.names)}")
    if "n_components" in summary:
        click.echo(f"  components  {summary['n_components']}")
    if "mean_log_likelihood" in summary:
        click.echo(f"  mean log-likelihood  {summary['mean_log_likelihood']:.4f} nats an event")
    click.echo(f"  reference   {len(fitted.reference):,} energies of events that the model did not see")
    since = "the first window" if not stored.valid_from_us else when(stored.valid_from_us)
    click.echo(f"  valid from  {since}")
    click.echo(f"  took        {time.monotonic() - began_s:.1f} s")


def _bar(title: str, total: int | None) -> Any:
    from monitor.cli.progress import progress_bar

    return progress_bar(title, total)
