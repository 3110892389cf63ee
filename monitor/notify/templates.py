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

TemplateFailureHandler = Callable[[str], None]
"""Is called with the cause when a template has failed and the built-in text takes its place."""


def log_template_failure(cause: str) -> None:
    """Log that a template has failed."""
    log.warning(
        "A template of a message has failed (%s); the built-in text is sent.", cause, extra={"action": "notify"}
    )


class TextTemplate:
    """A template of a text. Its own text is kept as written; every value in it is escaped."""

    def __init__(
        self,
        source: str,
        escape: Callable[[str], str],
        on_failure: TemplateFailureHandler = log_template_failure,
    ) -> None:
        """Compile the template.

        Args:
            source: The template of the user; empty: there is none.
            escape: Escapes a value for the receiver.
            on_failure: Is called when the template fails.

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
        self._on_failure = on_failure
        try:
            self._template = environment.from_string(source) if source else None
        except TemplateError as error:
            raise ConfigError(f"template: is not valid: {error}; see docs/alerts.md") from error

    def render(self, facts: MessageFacts) -> str | None:
        """Return the text, or None for the built-in text of the channel.

        It is None without a template, and for a template that fails or gives an empty text, so that no message is lost.
        """
        if self._template is None:
            return None
        try:
            text = self._template.render(facts.as_variables())
        except Exception as error:  # noqa: BLE001 - a template may raise anything, and the message must be sent
            self._on_failure(f"{type(error).__name__}: {error}")
            return None
        if not text.strip():
            self._on_failure("it gives an empty text")
            return None
        return shorten(text, _MAX_CHARACTERS)
