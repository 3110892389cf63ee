"""Configuration: from a file and the environment to settings: defaults < file < environment."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from config.document import Document, Key, read_document
from config.environment import interpolate, overlay, referenced
from config.errors import ConfigError
from config.findings import findings, located
from config.secret_files import read_secret_files
from config.settings import Settings

_LEAST_REDACTED = 3


def load(path: Path | None, env: Mapping[str, str]) -> Settings:
    """Read the settings from a file, if one is named, and from the environment, which has the last word.

    Raises:
        ConfigError: Something cannot be used; a line for each problem names its place, key and way out.
    """
    return load_document(Document(values={}, places={(): "settings"}) if path is None else read_document(path), env)


def load_document(written: Document, env: Mapping[str, str], *, over: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of what is written; `env` fills its variables, `over` (or else `env`) goes over it.

    Raises:
        ConfigError: As `load`.
    """
    named = frozenset(referenced(written.values))
    filled, unfilled = interpolate(written, env)
    document, unread = overlay(filled, env if over is None else over, named)
    problems = [*unfilled, *unread, *read_secret_files(document)]
    try:
        settings = Settings.model_validate(document.values)
    except ValidationError as error:
        known = {problem[0] for problem in problems}
        problems += [found for found in findings(error, document) if not _follows(found[0], known)]
        raise _refuse(problems, document, {name: env[name] for name in named if name in env}) from None
    if problems:
        raise _refuse(problems, document, {name: env[name] for name in named if name in env})
    return settings


def example_text() -> str:
    """Return the annotated example configuration."""
    return Path(__file__).with_name("example.yaml").read_text(encoding="utf-8")


def _follows(path: Key, known: Iterable[Key]) -> bool:
    """Return whether a finding is only the echo of a problem that is already named."""
    plain = [(*key[:-1], str(key[-1]).removesuffix("_file")) for key in known if key]
    return any(path == key for key in (*known, *plain))


def _refuse(problems: list[tuple[Key, str]], document: Document, variables: Mapping[str, str]) -> ConfigError:
    lines = dict.fromkeys(located(path, message, document) for path, message in problems)
    return ConfigError(*(_redact(line, variables) for line in lines))


def _redact(line: str, variables: Mapping[str, str]) -> str:
    """Put the names of variables back where their values would be shown: any of them may be a secret."""
    for name, value in sorted(variables.items(), key=lambda item: -len(item[1])):
        if len(value) >= _LEAST_REDACTED:
            line = line.replace(value, f"${{{name}}}").replace(repr(value)[1:-1], f"${{{name}}}")
    return line
