"""Entry point: a group that imports a command only when it is called."""

import difflib
import importlib
import logging
import sys
from importlib import metadata
from pathlib import Path

import click

from config.errors import OutriderError

COMMANDS = {
    "init": ("monitor.cli.init", "Sample a topic or file and write a configuration."),
    "check": ("monitor.cli.check", "Validate the configuration, connect, and print the false-alarm budget."),
    "fit": ("monitor.cli.fit", "Fit a model on a file or on the stream's own first events."),
    "run": ("monitor.cli.run", "Run the daemon."),
    "serve": ("monitor.cli.serve", "Serve the API and the page beside the daemon."),
    "score": ("monitor.cli.score", "Score a file with the active model; store nothing."),
    "status": ("monitor.cli.status", "Show the status of each stream."),
    "history": ("monitor.cli.history", "List scores from the history."),
    "incidents": ("monitor.cli.incidents", "List incidents, show why one opened, or act on one."),
    "accept": ("monitor.cli.accept", "Accept an incident as normal."),
    "mutes": ("monitor.cli.mutes", "List, add or end mutes of messages."),
    "thresholds": ("monitor.cli.thresholds", "List a stream's thresholds."),
    "models": ("monitor.cli.models", "List, promote or import a stream's models."),
    "backtest": ("monitor.cli.backtest", "Replay recorded events or stored windows with the daemon's code."),
    "offsets": ("monitor.cli.offsets", "Show or reset a stream's positions."),
    "notify": ("monitor.cli.notify", "List the notification channels, or test one."),
    "export": ("monitor.cli.export", "Write the scores of a stream to Parquet files."),
    "demo": ("monitor.cli.demo", "Run the daemon on a synthetic stream."),
    "db": ("monitor.cli.db", "Upgrade, check or copy the database."),
    "config": ("monitor.cli.config", "Print the configuration's JSON Schema."),
}


class LazyGroup(click.Group):
    """Group that imports a command when it runs, so that --help stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the command names in the order of `COMMANDS`."""
        return [name for name, (module, _) in COMMANDS.items() if _module_exists(module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS or not _module_exists(COMMANDS[cmd_name][0]):
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; suggest the closest name for an unknown one."""
        near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1) if args else []
        if near and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"there is no command {args[0]!r}; did you mean {near[0]}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command names and help texts without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


def _module_exists(module: str) -> bool:
    return (Path(__file__).parent / f"{module.rpartition('.')[2]}.py").exists()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    envvar="OUTRIDER_CONFIG",
    help="The configuration file (default: outrider.yaml, or $OUTRIDER_CONFIG).",
)
@click.option("--debug", is_flag=True, help="Show tracebacks and debug messages.")
@click.version_option(version=metadata.version("outrider"), prog_name="outrider")
@click.pass_context
def outrider(ctx: click.Context, config_path: Path | None, debug: bool) -> None:
    """Watch streams of feature events for outliers and drift."""
    ctx.ensure_object(dict)
    ctx.obj = {"config": config_path, "debug": debug}


def main() -> None:
    """Run the command line and exit with its code; print errors as one line, a traceback only with --debug."""
    debug = "--debug" in sys.argv
    try:
        outrider.main(standalone_mode=False)
    except click.ClickException as misuse:
        misuse.show()
        sys.exit(2)
    except click.exceptions.Abort:
        sys.exit(130)
    except OutriderError as error:
        if debug:
            raise
        click.echo(f"outrider: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
    except OSError as error:
        if debug:
            raise
        place = f"{error.filename}: " if error.filename else ""
        click.echo(f"outrider: {place}{error.strerror or error}", err=True)
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        logging.getLogger(__name__).debug("unexpected", exc_info=True)
        click.echo(
            f"outrider: unexpected {type(error).__name__}: {error} (run again with --debug for the traceback)",
            err=True,
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
