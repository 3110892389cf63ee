"""`outrider db`: upgrade or check the database schema, or copy a database."""

from contextlib import ExitStack

import click

from config.errors import ConfigError
from monitor.cli.settings import load_settings
from storage.database.engine import Database
from storage.database.revisions import KNOWN_REVISIONS


@click.group(name="db")
def command() -> None:
    """Upgrade, check or copy the database."""


@command.command(name="upgrade")
@click.pass_context
def upgrade(ctx: click.Context) -> None:
    """Upgrade the schema to this version; create it in an empty database."""
    from storage.database.migrations.upgrade import upgrade as upgrade_schema

    with Database(load_settings(ctx).database.url) as db:
        before = db.schema_revision()
        # The user decides about running processes here. On SQLite the lock excludes them: they would be in the way.
        with ExitStack() as stack:
            if before != KNOWN_REVISIONS[-1]:
                stack.enter_context(db.lock_for_daemon())
            upgrade_schema(db, beside_older=True)
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


@command.command(name="copy")
@click.argument("from_url")
@click.argument("to_url")
def copy(from_url: str, to_url: str) -> None:
    """Copy all rows of FROM_URL into the empty database TO_URL, from SQLite to PostgreSQL or back.

    Stop the daemon first. The source is not changed. FROM_URL and TO_URL are written as `database.url`.
    """
    from storage.copy import copy_database

    with ExitStack() as stack:
        source = stack.enter_context(_open(from_url, "FROM_URL", read_only=True))
        target = stack.enter_context(_open(to_url, "TO_URL"))
        total = copy_database(source, target, lambda table, n: click.echo(f"{table}: {n:,} rows", err=True))
        click.echo(f"Copied {total:,} rows from {source.address} to {target.address}.")


def _open(url: str, argument: str, *, read_only: bool = False) -> Database:
    try:
        return Database(url, read_only=read_only)
    except ConfigError as error:
        raise ConfigError(str(error).replace("database.url", argument)) from None
