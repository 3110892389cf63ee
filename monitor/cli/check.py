"""`outrider check`: whether the settings work, what takes effect, and what the promises mean in numbers."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import click
import yaml

from config.errors import BrokerUnavailable, ConfigError, OutriderError
from config.settings import Settings, StreamSettings
from consumers.source import Found
from monitor.cli.memory import MemoryBound
from monitor.cli.promise import advice, nominal_counts, nominal_law, promises, thin_reference
from monitor.cli.settings import settings_of
from monitor.findings.calibration import clean_rate_of, law_of
from storage.engine import Database
from storage.ledger import Ledger
from storage.migrations import KNOWN_REVISIONS
from storage.standing import StreamStanding, standing_of, stream_ids

_ASSUMED_FEATURES = 32
_SHOWN_PARTITIONS = 4


@dataclass(slots=True, kw_only=True)
class _Report:
    """What was found, as comments below the settings, and what does not work."""

    problems: list[OutriderError] = field(default_factory=list)
    broker_away: bool = False

    def say(self, line: str, *, indent: int = 0) -> None:
        click.echo(f"# {'  ' * indent}{line}")

    def problem(self, error: OutriderError, *, indent: int = 0) -> None:
        self.problems.append(error)
        self.say(f"does not work: {error}", indent=indent)

    def end(self) -> None:
        """Raise what was found, all of it at once.

        Raises:
            OutriderError: Something does not work.
        """
        if not self.problems:
            return
        said = list(dict.fromkeys(str(error) for error in self.problems))
        if any(error.exit_code == ConfigError.exit_code for error in self.problems):
            raise ConfigError(*said)
        raise OutriderError("\n".join(said))


@click.command(name="check")
@click.option("--offline", is_flag=True, help="Connect to nothing: neither the database nor the sources.")
@click.pass_context
def command(ctx: click.Context, offline: bool) -> None:
    """Validate the settings, connect, and print what takes effect.

    The settings are written as YAML, without secrets; all else follows as comments.
    """
    settings = settings_of(ctx)
    click.echo(yaml.safe_dump(settings.public(), sort_keys=False, allow_unicode=True))
    report = _Report()
    standings: dict[str, StreamStanding] = {}
    if not offline:
        standings = _check_database(settings, report)
        _check_device(settings, report)
    for name, own in settings.streams.items():
        _check_stream(settings, name, own, standings.get(name), report, offline=offline)
    report.end()
    click.echo("# All of it works." if not offline else "# The settings are valid; nothing was connected to.")


def _check_database(settings: Settings, report: _Report) -> dict[str, StreamStanding]:
    """Look at the database; return where its streams stand, as far as its schema is ours."""
    report.say("database")
    try:
        with Database(settings.database.url) as db:
            db.check_writable()
            if db.file is not None and not db.file.exists():
                report.say(f"{db.address} is not there yet: the first run makes it", indent=1)
                return {}
            found = db.revision()
            if found is None or found in KNOWN_REVISIONS[:-1]:
                missing = "has no tables yet: the first run makes them"
                older = f"has schema {found}: the next run brings it to {KNOWN_REVISIONS[-1]}"
                report.say(f"{db.address} {missing if found is None else older}", indent=1)
                return {}
            db.check()
            report.say(f"{db.address} has schema {found}", indent=1)
            standings = {
                name: standing_of(db, stream_id, lease=f"control:{name}")
                for name, stream_id in stream_ids(db).items()
                if name in settings.streams
            }
            for standing in standings.values():
                _check_model(db, standing, report)
            return standings
    except OutriderError as error:
        report.problem(error, indent=1)
        return {}


def _check_model(db: Database, standing: StreamStanding, report: _Report) -> None:
    """Load the active model, as the daemon would."""
    if standing.model is None:
        return
    from monitor.scoring import load_model

    try:
        load_model(Ledger(db).model(standing.model.id), "cpu")
        report.say(f"stream {standing.name} has model {standing.model.version} ({standing.model.kind})", indent=1)
    except OutriderError as error:
        report.problem(error, indent=1)


def _check_device(settings: Settings, report: _Report) -> None:
    if settings.device != "cuda":
        return
    from monitor.scoring import pick_device

    report.say("device")
    try:
        report.say(f"{pick_device(settings.device)} is there", indent=1)
    except OutriderError as error:
        report.problem(error, indent=1)


def _check_stream(
    settings: Settings,
    name: str,
    own: StreamSettings,
    standing: StreamStanding | None,
    report: _Report,
    *,
    offline: bool,
) -> None:
    report.say(f"stream {name}")
    found, fetch = _ask_source(settings, name, own, report, offline=offline)
    for line in _memory(own, standing, found, fetch):
        report.say(line, indent=1)
    for line in _promises(own, standing):
        report.say(line, indent=1)


def _ask_source(
    settings: Settings, name: str, own: StreamSettings, report: _Report, *, offline: bool
) -> tuple[list[Found], int | None]:
    """Return the partitions that the source has, none when it is not asked, and the bound on what it fetches."""
    if own.source.type == "file" and own.source.is_stdin:
        report.say("source: standard input, which is read once and was not tried", indent=1)
        return [], None
    from consumers.open import open_source

    found: list[Found] = []
    fetch: int | None = None
    try:
        with contextlib.closing(open_source(name, settings, group=False)) as source:
            fetch = getattr(source, "memory_bound_bytes", None)
            if report.broker_away and own.source.type == "kafka":
                report.say("source: not asked, since the brokers do not answer", indent=1)
            elif not offline:
                found = source.discover()
                # Asked once more: with the partitions known the bound is the one that holds.
                fetch = getattr(source, "memory_bound_bytes", None)
    except OutriderError as error:
        report.problem(error, indent=1)
        report.broker_away = report.broker_away or isinstance(error, BrokerUnavailable)
    for each in found[:_SHOWN_PARTITIONS]:
        report.say(f"source: {each.partition} has the offsets {each.begin:,} to {each.end:,}", indent=1)
    if len(found) > _SHOWN_PARTITIONS:
        report.say(f"source: and {len(found) - _SHOWN_PARTITIONS:,} partitions more", indent=1)
    return found, fetch


def _memory(
    own: StreamSettings, standing: StreamStanding | None, found: list[Found], fetch: int | None
) -> Iterator[str]:
    features = _feature_count(own, standing)
    bound = MemoryBound(fetch=fetch, partitions=_partitions(own, found), features=features or _ASSUMED_FEATURES)
    first, *parts = bound.lines()
    yield f"memory: {first}"
    yield from parts
    if features is None:
        yield f"  ({_ASSUMED_FEATURES} features are a guess: event.features is auto, and no model is stored)"
    if not found and own.source.type == "kafka":
        yield "  (for one partition: how many there are, only the broker knows)"


def _partitions(own: StreamSettings, found: list[Found]) -> int:
    return len(found) or (own.source.partitions if own.source.type == "synthetic" else 1)


def _feature_count(own: StreamSettings, standing: StreamStanding | None) -> int | None:
    if standing is not None and standing.model is not None:
        return len(standing.model.feature_names)
    if own.event.features != "auto":
        return len(own.event.features)
    return own.source.features if own.source.type == "synthetic" else None


def _promises(own: StreamSettings, standing: StreamStanding | None) -> Iterator[str]:
    """Say what the promise means for windows as they are, or for some sizes where none was judged yet."""
    limit = None if standing is None else standing.threshold
    law = nominal_law(own) if limit is None else law_of(limit.details)
    clean_rate = law.rate if limit is None else clean_rate_of(limit.details)
    typical = None if standing is None else standing.events_a_window
    counts = nominal_counts(own) if typical is None else (typical,)
    yield from promises(law, counts, own, clean_rate)
    hint = advice(law, counts[-1], own)
    if hint is not None:
        yield f"  {hint}"
    thin = thin_reference(own) if limit is None else None
    if thin is not None:
        yield f"  {thin}"
    if typical is None and own.source.type != "synthetic":
        yield "  (no window has been judged yet: these are for some numbers of events a window)"
