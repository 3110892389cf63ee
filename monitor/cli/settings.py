"""What every command starts with: the settings of the file named on the command line, and a stream of them."""

import difflib
import os
import sys
from pathlib import Path

import click

from config.errors import ConfigError
from config.loading import load
from config.settings import Settings


def load_settings(ctx: click.Context) -> Settings:
    """Return the settings that the command runs under."""
    refuse_shadowed_packages()
    named: Path | None = ctx.obj["config"]
    return load(named or Path("outrider.yaml"), os.environ)


def require_stream(settings: Settings, name: str) -> str:
    """Return the stream's name.

    Raises:
        ConfigError: There is no such stream; names the nearest one.
    """
    if name in settings.streams:
        return name
    near = difflib.get_close_matches(name, settings.streams, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the streams are {', '.join(settings.streams)}"
    raise ConfigError(f"there is no stream {name!r} in the configuration; {hint}")


def refuse_shadowed_packages() -> None:
    """Refuse to run when a file of the user's hides one of our packages."""
    ours = Path(__file__).resolve().parents[2]
    for package in ("config", "consumers", "storage"):
        found = Path(getattr(sys.modules.get(package), "__file__", None) or ours / package / "__init__.py").resolve()
        if ours not in found.parents:
            raise ConfigError(
                f"{found} hides Outrider's own package {package!r}: rename it, or run from another folder"
            )
