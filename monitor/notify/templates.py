"""Texts of messages from templates (Jinja2, in its sandbox), with the values escaped for their receiver."""

import logging
from collections.abc import Callable

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from config.errors import ConfigError
from monitor.notify.escaping import shorten
from monitor.notify.facts import MessageFacts

log = logging.getLogger(__name__)

_MAX_CHARACTERS = 20_000


class TextTemplate:
    """A template of a text. Its own text is kept as written; every value in it is escaped."""

    def __init__(self, source: str, default: str, escape: Callable[[str], str]) -> None:
        """Compile the template.

        Args:
            source: The template of the user; empty: the default.
            default: The template of the channel, for `source` that is empty or fails.
            escape: Escapes a value for the receiver.

        Raises:
            ConfigError: `source` is not a template.
        """
        environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined,
            finalize=lambda value: escape("" if value is None else str(value)),
            autoescape=False,  # `finalize` escapes for the receiver, which is not HTML in general
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._default = environment.from_string(default)
        try:
            self._template = environment.from_string(source) if source else self._default
        except TemplateError as error:
            raise ConfigError(f"a template of a message is not valid: {error}; see docs/alerts.md") from error

    def render(self, facts: MessageFacts) -> str:
        """Return the text. A template of the user that fails is replaced by the default, so that no message is lost."""
        variables = facts.as_variables()
        try:
            text = self._template.render(variables)
        except Exception as error:  # noqa: BLE001 - a template may raise anything, and the message must be sent
            log.warning(
                "A template of a message has failed (%s: %s); the default text is sent.",
                type(error).__name__,
                error,
                extra={"action": "notify"},
            )
            text = self._default.render(variables)
        return shorten(text, _MAX_CHARACTERS)
