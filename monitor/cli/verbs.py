"""Verbs on an incident, as `outrider incidents VERB ID` and `outrider accept ID` apply them."""

import getpass
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from config.errors import ConfigError
from config.settings import Settings
from config.time_format import format_time
from config.units import parse_time
from monitor.cli.database import format_latest_incidents, open_database
from monitor.cli.settings import load_settings
from storage.control.verbs import Basis, VerbFacts, VerbResult, VerbStore
from storage.database.engine import Database

if TYPE_CHECKING:
    from monitor.incidents.verb_plan import VerbRequest

who_option = click.option("--who", help="Name of the person (default: the login name).")
note_option = click.option("--note", help="Reason, stored with the verb and told with its message.")


dry_run_option = click.option("--dry-run", is_flag=True, help="Print what the verb would change, and its basis.")
basis_option = click.option("--basis", help="Act only if this basis of a --dry-run has not changed.")


def verb_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument and the options of a verb to a command."""
    for decorate in (basis_option, dry_run_option, note_option, who_option, click.argument("incident", type=int)):
        command = decorate(command)
    return command


def login_name() -> str:
    """Return the login name of the person.

    Raises:
        ConfigError: The system knows no name, as in a container with an arbitrary user id.
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        raise ConfigError("your login name is unknown here; say who you are with --who NAME") from None


def run_verb(ctx: click.Context, verb: str, incident: int, *, key: str | None = None, **options: Any) -> None:
    """Apply a verb to an incident, or preview it, and print the result.

    Args:
        ctx: The context of the command.
        verb: Name of the verb.
        incident: The incident.
        key: The key of the incident that `accept` is about; None for the incident itself.
        options: The values of `verb_options`.
    """
    from monitor.incidents.verb_plan import VerbRequest
    from monitor.incidents.verbs import Verb

    settings = load_settings(ctx)
    facts = load_facts(settings, incident)
    request = VerbRequest(verb=Verb(verb), who=options["who"] or login_name(), note=options["note"], key=key)
    if options["dry_run"]:
        with open_database(settings) as db:
            click.echo(_preview(db, settings, facts, request))
        return
    basis = None if options["basis"] is None else parse_basis(options["basis"])
    with Database(settings.database.url) as db:
        db.check_schema()
        click.echo(_apply(db, settings, facts, request, basis))


def load_facts(settings: Settings, incident: int) -> VerbFacts:
    """Return the facts of an incident.

    Raises:
        ConfigError: There is no such incident.
    """
    with open_database(settings) as db:
        facts = VerbStore(db).facts(incident)
    if facts is None:
        raise ConfigError(f"there is no incident {incident}; {format_latest_incidents(settings)}")
    return facts


def _apply(db: Database, settings: Settings, facts: VerbFacts, request: "VerbRequest", basis: Basis | None) -> str:
    from monitor.daemon.verbs import apply_configured_verb

    result = apply_configured_verb(db, settings, facts, request, basis)
    return describe_result(result, request.verb.value, request.key)


def _preview(db: Database, settings: Settings, facts: VerbFacts, request: "VerbRequest") -> str:
    from monitor.cli.output.preview_text import format_preview
    from monitor.daemon.verbs import preview_configured_verb

    return format_preview(preview_configured_verb(db, settings, facts, request), request.verb.value, request.key)


def parse_basis(text: str) -> Basis:
    """Return the basis that `format_basis` has printed.

    Raises:
        ConfigError: The text has another form.
    """
    tick, _, revision = text.partition("/")
    try:
        return Basis(tick_us=None if tick == "-" else parse_time(tick), revision=int(revision))
    except ValueError:
        raise ConfigError(f"{text!r} is not a basis; copy it from the output of --dry-run") from None


def describe_result(result: VerbResult, verb: str, key: str | None = None) -> str:
    """Return a sentence about the incident after a verb, or about its key."""
    from monitor.incidents.accept import describe_acceptance

    facts = result.facts
    assert facts is not None, "a verb on an unknown incident is an error"
    incident = facts.incident
    name = f"Incident {incident.id} ({incident.kind.replace('_', ' ')} on {facts.stream})"
    if key is not None:
        from monitor.incidents.accepted_keys import describe_key_acceptance

        if result.outcome == "unchanged":
            return f"Key {key} of stream {facts.stream} is accepted already; nothing was changed."
        effect = describe_key_acceptance(key, result.effects["rates"][0])
        return f"Key {key} of stream {facts.stream} is accepted: {effect}."
    if result.outcome == "unchanged":
        return f"{name} {_describe_state(facts, verb)} already; nothing was changed."
    if verb == "accept":
        return f"{name} is accepted: {describe_acceptance(incident.kind, result.windows, result.effects)}."
    return f"{name} {_PAST[verb]}{_describe_windows(verb, result.windows)}."


def _describe_state(facts: VerbFacts, verb: str) -> str:
    incident = facts.incident
    if verb == "acknowledge" and incident.acknowledged_until_us is not None:
        until = format_time(incident.acknowledged_until_us)
        return f"was acknowledged by {facts.acknowledged_by} (until {until})"
    return _PAST[verb]


def _describe_windows(verb: str, windows: int) -> str:
    if not windows:
        return ""
    counted = "1 window counts" if windows == 1 else f"{windows:,} windows count"
    how = "again" if verb == "false_alarm" else "no longer"
    return f": {counted} {how} from the next threshold on"


_PAST = {
    "acknowledge": "is acknowledged: it is not repeated for 24 h unless it becomes more severe",
    "accept": "is accepted",
    "false_alarm": "is a false alarm",
    "confirm": "is confirmed as a true alarm",
    "resolve": "is resolved",
    "reopen": "is open again",
}
