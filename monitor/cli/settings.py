"""Settings of the configuration file, and checks that every command runs first."""

import difflib
import os
import sys
from pathlib import Path

import click

from config.errors import ConfigError
from config.loading import load
from config.settings import Settings


def load_settings(ctx: click.Context) -> Settings:
    """Load the settings from the file of -c, or from outrider.yaml."""
    refuse_shadowed_packages()
    named: Path | None = ctx.obj["config"]
    return load(named or Path("outrider.yaml"), os.environ)


def require_stream(settings: Settings, name: str) -> str:
    """Return the name of a configured stream.

    Raises:
        ConfigError: There is no such stream; the message suggests the closest name.
    """
    if name in settings.streams:
        return name
    near = difflib.get_close_matches(name, settings.streams, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the streams are {', '.join(settings.streams)}"
    raise ConfigError(f"there is no stream {name!r} in the configuration; {hint}")


def refuse_shadowed_packages() -> None:
    """Check that no file of the user shadows one of our packages.

    Raises:
        ConfigError: A package was imported from another place.
    """
    ours = Path(__file__).resolve().parents[2]
    for package in ("config", "consumers", "storage"):
        found = Path(getattr(sys.modules.get(package), "__file__", None) or ours / package / "__init__.py").resolve()
        if ours not in found.parents:
            raise ConfigError(f"{found} shadows Outrider's package {package!r}: rename it, or run from another folder")
