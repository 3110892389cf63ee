"""Loading of the settings from defaults, file and environment, in ascending precedence."""

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
    """Load the settings from a file, if one is given, and from the environment, which takes precedence.

    Raises:
        ConfigError: A setting is not valid. The message has one line per problem: place, key, problem and remedy.
    """
    return load_document(Document(values={}, places={(): "settings"}) if path is None else read_document(path), env)


def load_document(written: Document, env: Mapping[str, str], *, over: Mapping[str, str] | None = None) -> Settings:
    """Build settings from a parsed document: substitute `${VAR}` from `env`, then apply environment overrides.

    Args:
        written: The parsed document.
        env: The environment for the substitution.
        over: The environment for the overrides. The default is `env`.

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
        problems += [item for item in describe_errors(error, document) if not _is_consequence(item[0], known)]
        raise _build_error(problems, document, {name: env[name] for name in named if name in env}) from None
    if problems:
        raise _build_error(problems, document, {name: env[name] for name in named if name in env})
    return settings


def example_text() -> str:
    """Return the annotated example configuration."""
    return Path(__file__).with_name("example.yaml").read_text(encoding="utf-8")


def _is_consequence(path: KeyPath, known: Iterable[KeyPath]) -> bool:
    """Return True if an error is only a consequence of a problem that is already reported."""
    plain = [(*key[:-1], str(key[-1]).removesuffix("_file")) for key in known if key]
    return any(path == key for key in (*known, *plain))


def _build_error(problems: list[tuple[KeyPath, str]], document: Document, variables: Mapping[str, str]) -> ConfigError:
    lines = dict.fromkeys(format_problem(path, message, document) for path, message in problems)
    return ConfigError(*(_redact(line, variables) for line in lines))


def _redact(line: str, variables: Mapping[str, str]) -> str:
    """Replace the values of variables by their names, because any of them may be a secret."""
    for name, value in sorted(variables.items(), key=lambda item: -len(item[1])):
        if len(value) >= _MIN_REDACTED_LENGTH:
            line = line.replace(value, f"${{{name}}}").replace(repr(value)[1:-1], f"${{{name}}}")
    return line
