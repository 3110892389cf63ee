"""`outrider db`: upgrade or check the database schema."""

import click

from monitor.cli.settings import load_settings
from storage.database.engine import Database


@click.group(name="db")
def command() -> None:
    """Upgrade or check the database."""


@command.command(name="upgrade")
@click.pass_context
def upgrade(ctx: click.Context) -> None:
    """Upgrade the schema to this version; create it in an empty database."""
    from storage.database.migrations.upgrade import upgrade as upgrade_schema

    with Database(load_settings(ctx).database.url) as db:
        before = db.schema_revision()
        upgrade_schema(db)
        after = db.schema_revision()
        if before == after:
            click.echo(f"{db.address} already has schema {after}.")
        else:
            click.echo(f"{db.address} now has schema {after} (before: {before or 'none'}).")


@command.command(name="check")
@click.pass_context
def check(ctx: click.Context) -> None:
    """Check that the schema is of this version; exit with 1 otherwise."""
    with Database(load_settings(ctx).database.url, read_only=True) as db:
        db.check_schema()
        click.echo(f"{db.address} has schema {db.schema_revision()}, which this version of Outrider supports.")
