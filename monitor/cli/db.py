"""`outrider db`: the schema of the database."""

import click

from monitor.cli.settings import load_settings
from storage.database.engine import Database


@click.group(name="db")
def command() -> None:
    """Upgrade or check the database."""


@command.command(name="upgrade")
@click.pass_context
def upgrade(ctx: click.Context) -> None:
    """Bring the schema to this version; creates it where there is none."""
    from storage.database.migrations.upgrade import upgrade as upgrade_schema

    with Database(load_settings(ctx).database.url) as db:
        before = db.schema_revision()
        upgrade_schema(db)
        after = db.schema_revision()
        if before == after:
            click.echo(f"{db.address} has schema {after} already.")
        else:
            click.echo(f"{db.address} has schema {after} now (before: {before or 'none'}).")


@command.command(name="check")
@click.pass_context
def check(ctx: click.Context) -> None:
    """Say whether the schema is this version's; ends with 1 when it is not."""
    with Database(load_settings(ctx).database.url, read_only=True) as db:
        db.check_schema()
        click.echo(f"{db.address} has schema {db.schema_revision()}, which this Outrider works with.")
