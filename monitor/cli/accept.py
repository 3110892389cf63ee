"""`outrider accept`: accept an incident as normal."""

from typing import Any

import click

from config.errors import ConfigError
from config.time_format import format_time
from monitor.cli.settings import load_settings
from monitor.cli.verbs import load_facts, run_verb, verb_options


@click.command(name="accept")
@verb_options
@click.option("--key", help="Accept the habit of this key of the incident; the incident itself stays as it is.")
@click.pass_context
def command(ctx: click.Context, /, incident: int, key: str | None, **options: Any) -> None:
    """Accept INCIDENT as normal: resolve it, and treat its windows as normal from now on.

    Works with and without a running daemon. A running daemon applies the change at its next threshold tick.

    With --key it says that a key whose events usually are outliers is normal: they are expected beyond 28 days, for as
    long as their rate remains. It applies from the next window on, and also from an incident that has ended.
    """
    if key is not None:
        run_verb(ctx, "accept", incident, key=key, **options)
        return
    facts = load_facts(load_settings(ctx), incident)
    if facts.incident.resolved_at_us is not None and facts.verdict != "accepted":
        raise ConfigError(
            f"incident {incident} ended at {format_time(facts.incident.resolved_at_us)}; nothing was changed. "
            f"`outrider incidents false-alarm {incident}` lets its windows count again"
        )
    run_verb(ctx, "accept", incident, **options)
