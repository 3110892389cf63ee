"""Configuration: from a file and the environment to settings: defaults < file < environment."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from config.document import Document, KeyPath, read_document
from config.environment import apply_environment, referenced_variables, substitute_variables
from config.errors import ConfigError
from config.secret_files import read_secret_files
from config.settings import Settings
from config.validation_errors import describe_errors, format_problem

_MIN_REDACTED_LENGTH = 3


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
    named = frozenset(referenced_variables(written.values))
    filled, unfilled = substitute_variables(written, env)
    document, unread = apply_environment(filled, env if over is None else over, named)
    problems = [*unfilled, *unread, *read_secret_files(document)]
    try:
        settings = Settings.model_validate(document.values)
    except ValidationError as error:
        known = {problem[0] for problem in problems}
        problems += [found for found in describe_errors(error, document) if not _is_consequence(found[0], known)]
        raise _build_error(problems, document, {name: env[name] for name in named if name in env}) from None
    if problems:
        raise _build_error(problems, document, {name: env[name] for name in named if name in env})
    return settings


def example_text() -> str:
    """Return the annotated example configuration."""
    return Path(__file__).with_name("example.yaml").read_text(encoding="utf-8")


def _is_consequence(path: KeyPath, known: Iterable[KeyPath]) -> bool:
    """Return whether a finding is only the echo of a problem that is already named."""
    plain = [(*key[:-1], str(key[-1]).removesuffix("_file")) for key in known if key]
    return any(path == key for key in (*known, *plain))


def _build_error(problems: list[tuple[KeyPath, str]], document: Document, variables: Mapping[str, str]) -> ConfigError:
    lines = dict.fromkeys(format_problem(path, message, document) for path, message in problems)
    return ConfigError(*(_redact(line, variables) for line in lines))


def _redact(line: str, variables: Mapping[str, str]) -> str:
    """Put the names of variables back where their values would be shown: any of them may be a secret."""
    for name, value in sorted(variables.items(), key=lambda item: -len(item[1])):
        if len(value) >= _MIN_REDACTED_LENGTH:
            line = line.replace(value, f"${{{name}}}").replace(repr(value)[1:-1], f"${{{name}}}")
    return line
