"""`outrider init`: sample a topic or a file and write a configuration that runs."""

import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from config.errors import ConfigError, OutriderError
from config.units import parse_duration
from monitor.cli.init_starter import build_starter, write_starter
from monitor.cli.settings import refuse_shadowed_packages

if TYPE_CHECKING:
    from config.settings import Settings
    from config.starter_file import StarterConfig
    from consumers.discovery.encoding import DetectedEncoding
    from consumers.discovery.field_roles import FieldRoles
    from consumers.discovery.sample import RecordSample
    from monitor.cli.init_sampling import FirstRecords

_DEFAULT_SERVERS = "localhost:9092"
_SMALL_SAMPLE = 50
_DEFAULT_STREAM = "events"
_SECRET_NAME = re.compile(r"password|secret|token", re.IGNORECASE)
_USAGE = (
    "name the events to sample: --file events.jsonl, or --bootstrap-servers HOST:PORT --topic NAME "
    "(without --topic it lists the topics)"
)


@click.command(name="init")
@click.option("--bootstrap-servers", help=f"Comma-separated brokers as host:port (default: {_DEFAULT_SERVERS}).")
@click.option("--topic", help="The topic to sample.")
@click.option(
    "--file", "file", type=click.Path(path_type=Path), help="The .jsonl, .csv, .tsv or .parquet file to sample."
)
@click.option(
    "--client", multiple=True, metavar="KEY=VALUE", help="An option of the Kafka client; ${NAME} for secrets."
)
@click.option(
    "--events", default=5_000, show_default=True, type=click.IntRange(1, 100_000), help="Number of events to sample."
)
@click.option(
    "--wait", default="10s", show_default=True, help="Maximum time to sample and to wait for the first events."
)
@click.option("--force", is_flag=True, help="Overwrite an existing configuration.")
@click.pass_context
def command(
    ctx: click.Context,
    bootstrap_servers: str | None,
    topic: str | None,
    file: Path | None,
    client: tuple[str, ...],
    events: int,
    wait: str,
    force: bool,
) -> None:
    """Sample a topic or a file, print the role of each field, and write a configuration that runs.

    Writes to the path of -c (default: outrider.yaml). Without --topic and --file it lists the topics.
    """
    refuse_shadowed_packages()
    if file is not None and (topic or bootstrap_servers or client):
        raise click.UsageError("--file cannot be combined with a topic, brokers or client options: use either")
    if file is None and topic is None and bootstrap_servers is None:
        raise click.UsageError(_USAGE)
    if str(file) == "-":
        raise click.UsageError("--file: standard input can be read only once; write the events to a file first")
    servers, options = (bootstrap_servers or _DEFAULT_SERVERS).split(","), _parse_client_options(client)
    if file is None and topic is None:
        _print_topics(servers, options)
        return
    target: Path = ctx.obj["config"] or Path("outrider.yaml")
    if target.exists() and not force:
        raise ConfigError(f"{target} already exists: name another file with -c, or overwrite it with --force")
    within_s = _parse_wait_s(wait)
    name = _make_stream_name(topic or (file.stem if file else ""))
    values = _build_document(name, servers, options, topic, file)
    settings = _load_settings(values)
    records = _read_sample(settings, name, topic or str(file), events, within_s)
    look, sample, fields = _classify_fields(records, settings, name, topic or str(file))
    _print_fields(sample, fields)
    _print_time_warnings(sample, fields, is_file=file is not None)
    starter = build_starter(name, values, look, sample, fields, records)
    starter = replace(starter, derives=_arrives_regularly(records, settings, name, starter))
    write_starter(target, starter)


def _parse_client_options(given: Sequence[str]) -> dict[str, Any]:
    """Parse the client options.

    Raises:
        click.UsageError: An option is not KEY=VALUE, or a secret is given literally: the options are written to the
            configuration unchanged.
    """
    options: dict[str, Any] = {}
    for each in given:
        name, separator, value = each.partition("=")
        if not separator or not name:
            raise click.UsageError(f"--client {each!r}: write KEY=VALUE, such as --client security_protocol=SSL")
        if _SECRET_NAME.search(name) and not value.startswith("${") and not name.endswith("_file"):
            variable = f"KAFKA_{name.upper()}"
            raise click.UsageError(
                f"--client {name}: the secret would be written to the configuration; set an environment variable and "
                f"write --client '{name}=${{{variable}}}'"
            )
        options[name] = value
    return options


def _print_topics(servers: Sequence[str], options: Mapping[str, Any]) -> None:
    from consumers.kafka.topics import list_topics
    from monitor.cli.output.tables import write_rows

    kafka = _load_settings(_build_document(_DEFAULT_STREAM, servers, options, "any", None)).kafka
    addresses = ", ".join(kafka.bootstrap_servers)
    found = list_topics(kafka.bootstrap_servers, kafka.client)
    rows = [{"topic": each.topic, "partitions": each.partitions, "records": each.records} for each in found]
    write_rows(rows, ("topic", "partitions", "records"), "table", nothing=f"Kafka at {addresses} has no topics.")
    if found:
        most = max(found, key=lambda each: each.records).topic
        click.echo(
            f"\nChoose one: outrider init --bootstrap-servers {','.join(kafka.bootstrap_servers)} --topic {most}"
        )


def _parse_wait_s(wait: str) -> float:
    try:
        return parse_duration(wait).total_seconds()
    except ValueError as error:
        raise click.UsageError(f"--wait: {error}") from None


def _make_stream_name(text: str) -> str:
    """Convert the name of a topic or file to a valid stream name."""
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return name if re.match(r"[a-z]", name) else f"{_DEFAULT_STREAM}_{name}".rstrip("_")


def _build_document(
    stream: str, servers: Sequence[str], client: Mapping[str, Any], topic: str | None, file: Path | None
) -> dict[str, Any]:
    source = {"type": "file", "path": str(file)} if file else {"type": "kafka", "topics": [topic]}
    kafka: dict[str, Any] = {"bootstrap_servers": [each.strip() for each in servers]}
    if client:
        kafka["client"] = dict(client)
    return {"kafka": kafka, "streams": {stream: {"source": source}}}


def _load_settings(values: dict[str, Any]) -> "Settings":
    """Build settings from the values as from a configuration file: substitute `${VAR}` from the environment."""
    from config.document import Document
    from config.loading import load_document

    return load_document(Document(values=values, places={(): "outrider init"}), os.environ, over={})


def _read_sample(settings: "Settings", name: str, origin: str, wanted: int, within_s: float) -> "FirstRecords":
    """Read the first records and show the progress on the terminal.

    Raises:
        ConfigError: The file has no events.
        OutriderError: The topic is empty, and no event came within `within_s` seconds.
    """
    import logging

    from consumers.open import open_source
    from monitor.cli.init_sampling import read_first_records
    from monitor.cli.output.progress import progress_bar

    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # its failures are reported as our own errors
    with (
        closing(open_source(name, settings, group=False)) as source,
        progress_bar(f"sampling {origin}", wanted) as report_progress,
    ):
        records = read_first_records(source, wanted=wanted, within_s=within_s, progress=report_progress)
    if not len(records):
        where = f"topic {origin} on Kafka at {', '.join(settings.kafka.bootstrap_servers)}"
        if settings.streams[name].source.type == "file":
            raise ConfigError(f"{origin} has no events: name another file")
        raise OutriderError(
            f"{where} is empty: no event arrived within {records.took_s:.0f} s; produce events, or wait longer "
            "(--wait 5m)"
        )
    click.echo(
        f"read {len(records):,} of {records.available:,} records of {origin} in {records.took_s:.1f} s", err=True
    )
    return records


def _classify_fields(
    records: "FirstRecords", settings: "Settings", name: str, origin: str
) -> "tuple[DetectedEncoding, RecordSample, FieldRoles]":
    from config.units import to_us
    from consumers.batch import Table
    from consumers.discovery.encoding import DetectedEncoding, detect_encoding
    from consumers.discovery.field_roles import assign_roles
    from consumers.discovery.sample import sample_records

    look = DetectedEncoding(encoding="json", description="rows")
    if not any(isinstance(raw.values, Table) for raw in records.batches):
        look = detect_encoding([value for raw in records.batches for value in raw.values])  # type: ignore[union-attr]
    is_file = settings.streams[name].source.type == "file"
    if look.encoding is None or (is_file and look.encoding != "json"):
        readable = _file_format_hint(records, origin) if is_file else "json, msgpack and float32 (see event.format)"
        raise ConfigError(
            f"{origin}: the records seem to be {look.description}; Outrider reads {readable}: convert them first"
        )
    sample = sample_records(records.batches, look.encoding)
    if sample.rejected:
        listed = ", ".join(f"{reason} {n:,}" for reason, n in sample.rejected.items())
        click.echo(f"{sum(sample.rejected.values()):,} of them are not events ({listed})", err=True)
    if not sample.n_events:
        raise ConfigError(
            f"{origin}: none of the {len(records):,} sampled records is an event; they seem to be {look.description}"
        )
    max_future_us = to_us(settings.streams[name].window.max_future)
    return look, sample, assign_roles(sample, time.time_ns() // 1_000, max_future_us=max_future_us)


def _file_format_hint(records: "FirstRecords", origin: str) -> str:
    """Return the expected format of a file, with a `jq` command that converts JSON in another layout."""
    from consumers.batch import Table

    values = (value for raw in records.batches if not isinstance(raw.values, Table) for value in raw.values if value)
    first = next(values, b"").lstrip()
    if not first.startswith((b"[", b"{")):
        return "one JSON object per line"
    program = ".[]" if first.startswith(b"[") else "."
    return f"one JSON object per line (jq -c '{program}' {origin} > events.jsonl)"


def _print_fields(sample: "RecordSample", fields: "FieldRoles") -> None:
    from monitor.cli.output.tables import write_rows

    rows = [{"field": each.name, "use": each.role, "why": each.reason} for each in fields.roles]
    write_rows(rows, ("field", "use", "why"), "table")
    if sample.n_events < _SMALL_SAMPLE:
        events = f"{sample.n_events:,} event{'s' if sample.n_events > 1 else ''}"
        click.echo(
            f"\nThe sample has only {events}: a field that is constant or unique here may not be so later. "
            "Run init again when there are more events."
        )


def _print_time_warnings(sample: "RecordSample", fields: "FieldRoles", *, is_file: bool) -> None:
    from consumers.discovery.unread_times import warn_about_times
    from monitor.cli.output.tables import escape_unprintable

    for warning in warn_about_times(sample, fields.first("time"), time.time_ns() // 1_000, is_file=is_file):
        click.echo(f"warning: {escape_unprintable(warning)}", err=True)


def _arrives_regularly(records: "FirstRecords", settings: "Settings", name: str, starter: "StarterConfig") -> bool:
    """Return whether the sampled events of a key arrive regularly in event time."""
    from config.streams import TimeSettings
    from monitor.models.training_history import arrives_regularly

    if starter.features == "auto" or (starter.time is None and starter.path is not None):
        return False
    found = {
        "format": starter.encoding,
        "features": tuple(starter.features),
        "time": None if starter.time is None else TimeSettings(field=starter.time),
        "key": starter.key,
        "missing": "mean",
    }
    stream = settings.streams[name]
    stream = stream.model_copy(update={"event": stream.event.model_copy(update=found)})
    return arrives_regularly(records.batches, stream, starter.features)
