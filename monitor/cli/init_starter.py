"""The configuration that `outrider init` writes: values found in a sample of the events."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from config.errors import ConfigError

if TYPE_CHECKING:
    from config.starter_file import StarterConfig
    from consumers.discovery.encoding import DetectedEncoding
    from consumers.discovery.field_roles import FieldRoles
    from consumers.discovery.sample import RecordSample
    from monitor.cli.init_sampling import FirstRecords


def build_starter(
    name: str,
    values: Mapping[str, Any],
    look: "DetectedEncoding",
    sample: "RecordSample",
    fields: "FieldRoles",
    records: "FirstRecords",
) -> "StarterConfig":
    """Build the content of the configuration file.

    Raises:
        ConfigError: No field can be a feature, or the file has too few events for a model.
    """
    from config.sizing import EventVolume, resolve_auto
    from config.starter_file import StarterConfig
    from consumers.discovery.event_rate import estimate_volume
    from consumers.discovery.features import refuse_too_many_features
    from monitor.models.training_set import min_training_events

    source = values["streams"][name]["source"]
    topic, path = source.get("topics", [None])[0], source.get("path")
    features, needed = fields.names("feature"), min_training_events(len(fields.names("feature")))
    if not features:
        raise ConfigError(f"{topic or path}: no field can be a feature (see the table); nothing was written")
    refuse_too_many_features(features)
    usable = records.available * sample.n_events // max(1, len(records))
    if path is not None and usable < needed:
        raise ConfigError(
            f"{path}: {usable:,} events are too few, a model of {len(features):,} features needs {needed:,}; "
            "nothing was written: name a file with more events"
        )
    rate, lateness_us = estimate_volume(sample, fields)
    volume = EventVolume(available=usable, grows=path is None, rate=rate)
    return StarterConfig(
        stream=name,
        features="auto" if sample.unnamed else features,
        advice=resolve_auto(volume, len(features)),
        lateness_us=lateness_us,
        encoding=look.encoding or "json",
        servers=values["kafka"]["bootstrap_servers"],
        client=values["kafka"].get("client"),
        topic=topic,
        path=path,
        time=fields.first("time"),
        key=fields.first("key"),
        event_id=fields.first("id"),
        complete_share=fields.complete_share,
        rejected_fields=[(each.name, each.reason) for each in fields.roles if each.role == "refused"],
        sampled_events=sample.n_events,
    )


def write_starter(target: Path, starter: "StarterConfig") -> None:
    """Write the configuration after checking that it loads."""
    from config.document import parse_document
    from config.loading import load_document
    from config.starter_file import render_starter

    text = render_starter(starter)
    load_document(parse_document(text, str(target)), os.environ, over={})
    target.write_text(text, encoding="utf-8")
    again = "" if str(target) == "outrider.yaml" else f" -c {target}"
    click.echo(f"\nWrote {target}: stream {starter.stream}. Next: outrider{again} check, then outrider{again} run.")
