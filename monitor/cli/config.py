"""`outrider config`: the configuration's JSON Schema."""

import json

import click

from config.settings import config_schema


@click.group(name="config")
def command() -> None:
    """Print the configuration's JSON Schema."""


@command.command(name="schema")
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors and checks."""
    click.echo(json.dumps(config_schema(), indent=2, ensure_ascii=False))
