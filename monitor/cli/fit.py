"""`outrider fit`: fit a model on a file or on the stream's first events, and store it as active or shadow model."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from monitor.cli.fit_events import ChosenEvents, open_stream, read_training_events
from monitor.cli.output.logs import set_up_logging
from monitor.cli.output.progress import progress_bar
from monitor.cli.settings import load_settings, require_stream

if TYPE_CHECKING:
    from datetime import timedelta

    from numpy.typing import NDArray

    from config.settings import Settings, StreamSettings
    from monitor.models.fitting import FittedModel
    from monitor.models.training_set import TrainingSet
    from storage.control.models import ModelRecord
    from storage.database.engine import Database


@click.command(name="fit")
@click.argument("stream")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--kind", help="Kind of detector (default: model.kind of the configuration).")
@click.option("--n-components", help="Components of the mixture: a number, or auto.")
@click.option("--label", help="Field with the class of each event, for class_conditional.")
@click.option(
    "--last",
    type=click.IntRange(min=1),
    help="Fit on the newest N events: of FILE, of the samples of the stream's windows, or of its topic or file.",
)
@click.option(
    "--since",
    help="Fit on the events of this duration before the latest event (default for samples: 14d); with --last the "
    "newest of them.",
)
@click.option(
    "--shadow", is_flag=True, help="Store it as shadow model: it scores beside the active model and flags nothing."
)
@click.option(
    "--promote-after", help="With --shadow: promote it after this much event time (1d) if it passes the gate."
)
@click.pass_context
def command(
    ctx: click.Context,
    stream: str,
    file: Path | None,
    kind: str | None,
    n_components: str | None,
    label: str | None,
    last: int | None,
    since: str | None,
    shadow: bool,
    promote_after: str | None,
) -> None:
    """Fit a model on FILE, or on STREAM's own events, and store it as STREAM's active model.

    Without FILE, the events are the samples of the windows without an incident. A stream with too few samples is fitted
    on its first model.warm_up events without a model, and on the newest model.warm_up retained ones with a model. At
    the end of a topic, the fit takes the events that it has.
    """
    settings = load_settings(ctx)
    name = require_stream(settings, stream)
    after_us = _parse_promote_after(promote_after, shadow=shadow)
    set_up_logging("debug" if ctx.obj["debug"] else "info")
    stream_settings = _apply_model_options(settings.streams[name], kind, n_components)
    chosen = ChosenEvents(file=file, label=label, last=last, since=_parse_since(since))
    training, labels = read_training_events(settings, name, stream_settings, chosen)
    if file is not None and stream_settings.event.time is None:
        training = replace(training, partition_times_us=())  # the times of reading
    _fit_and_store(
        settings, name, stream_settings, training, labels, _ShadowOptions(after_us=after_us) if shadow else None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _ShadowOptions:
    after_us: int | None


def _parse_promote_after(text: str | None, *, shadow: bool) -> int | None:
    from config.units import parse_duration, to_us

    if text is None:
        return None
    if not shadow:
        raise click.UsageError("--promote-after requires --shadow: without it the model is active at once")
    try:
        return to_us(parse_duration(text))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--promote-after") from error


def _parse_since(text: str | None) -> "timedelta | None":
    from config.units import parse_duration

    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--since") from error


def _apply_model_options(settings: "StreamSettings", kind: str | None, n_components: str | None) -> "StreamSettings":
    """Return the stream's settings with the model options of the command line applied."""
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


def _fit_and_store(
    settings: "Settings",
    name: str,
    stream_settings: "StreamSettings",
    training: "TrainingSet",
    labels: "NDArray[Any] | None",
    shadow: _ShadowOptions | None,
) -> None:
    from config.auto_sizes import with_sizes
    from config.time_format import format_time
    from monitor.cli.output.tables import escape_unprintable
    from monitor.daemon.stored_sizes import find_fitted_sizes, follow_stored_sizes, read_stored_sizes
    from monitor.models.fitting import fit_model
    from monitor.models.screening_text import describe_screening
    from monitor.models.warm_up_progress import format_rejection
    from monitor.thresholds.body import describe_heavy_tail
    from monitor.thresholds.percentile import exceedance
    from storage.database.engine import Database

    started_s = time.monotonic()
    with progress_bar("fitting", None) as report_progress:
        fitted = fit_model(
            training, stream_settings.model, labels=labels, progress=lambda step, _: report_progress(step)
        )
    with Database(settings.database.url) as db:
        stream_id = open_stream(db, settings, name)
        stream_settings = with_sizes(stream_settings, read_stored_sizes(db, stream_id))
        sizes = find_fitted_sizes(db, follow_stored_sizes(db, settings), name, stream_id, training)
        stream_settings = with_sizes(stream_settings, sizes)
        stored, since_us = _store_model(db, name, stream_id, stream_settings, fitted, shadow, sizes)
    summary = stored.summary
    how = "is active" if shadow is None else "is the shadow model: it scores beside the active model and flags nothing"
    click.echo(f"stream {name}: {stored.kind}, version {stored.version}, {how}")
    click.echo(f"  events      {len(training):,} ({training.rejected:,} records rejected)")
    for each in training.rejections:
        click.echo(f"  rejected    {escape_unprintable(format_rejection(each))}")
    click.echo(f"  features    {len(training.names)}: {', '.join(training.names)}")
    if stored.derived_fields:
        click.echo(f"  derived     change and roughness of {', '.join(stored.derived_fields)}")
    if "n_components" in summary:
        click.echo(f"  components  {summary['n_components']}")
    if "mean_log_likelihood" in summary:
        click.echo(f"  mean log-likelihood  {summary['mean_log_likelihood']:.4f} nats per event")
    screening = describe_screening(fitted, stream_settings.threshold.percentile, stream_settings.threshold.method)
    if screening is not None:
        click.echo(f"  screening   {screening}")
    click.echo(f"  reference   {len(fitted.reference):,} energies of held-out events")
    since = "the first window" if not since_us else format_time(since_us)
    click.echo(f"  {'valid from ' if shadow is None else 'scores from'} {since}")
    click.echo(f"  took        {time.monotonic() - started_s:.1f} s")
    warning = describe_heavy_tail(fitted.reference, exceedance(stream_settings.threshold.percentile))
    if warning is not None:
        click.echo(f"warning: {warning}", err=True)
    if shadow is not None:
        click.echo(
            f"`outrider models gate {name}` shows whether it passes the gate. `outrider models promote {name} ",
            nl=False,
        )
        click.echo(f"{stored.version}` makes it the active model.")


def _store_model(
    db: "Database",
    name: str,
    stream_id: int,
    stream_settings: "StreamSettings",
    fitted: "FittedModel",
    shadow: _ShadowOptions | None,
    sizes: Mapping[str, Any],
) -> "tuple[ModelRecord, int | None]":
    """Store the model as active or shadow model.

    Returns:
        The stored model, and the start in microseconds of the first window that it scores (0 for the first event,
        None if the shadow was already replaced).
    """
    from config.errors import ModelError
    from monitor.thresholds.choose import estimate_first_threshold
    from monitor.thresholds.tick import build_first_threshold
    from storage.control.models import ModelStore
    from storage.control.shadows import NewShadow, ShadowStore

    rule, reference = stream_settings.threshold, fitted.reference
    active = ModelStore(db).active(stream_id)
    if active is not None and tuple(active.feature_names) != tuple(fitted.new_model.feature_names):
        raise ModelError(
            f"the events have the features {', '.join(fitted.new_model.feature_names)}, the active model of stream "
            f"{name} has {', '.join(active.feature_names)}: all models of a stream have the same features; set "
            "event.features to those of the active model"
        )
    if shadow is None:
        stored = ModelStore(db).add(
            stream_id,
            fitted.new_model,
            lambda model_id, activation: build_first_threshold(
                reference, model_id, activation, rule.percentile, rule.method
            ),
            sizes=sizes,
        )
        assert stored is not None, "`add` returns None only with only_first"
        return stored, stored.valid_from_us
    if active is None:
        raise ModelError(f"stream {name} has no active model to compare with: omit --shadow")
    threshold = estimate_first_threshold(reference, rule.percentile, method=rule.method).value
    new = NewShadow(percentile=rule.percentile, threshold=threshold, due_after_us=shadow.after_us)
    shadows = ShadowStore(db)
    stored = shadows.start(stream_id, fitted.new_model, new)
    running = shadows.current(stream_id)
    return stored, None if running is None else running.since_us
