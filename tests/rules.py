"""Stream rules for tests: the defaults of the configuration with changes."""

from dataclasses import replace
from typing import Any

from config.settings import Settings
from config.stream_rules import StreamRules
from monitor.daemon.rules import build_stream_rules

_DEFAULTS = build_stream_rules(
    Settings.model_validate({"streams": {"payments": {"source": {"type": "synthetic"}}}}), "payments"
)


def make_rules(**changes: Any) -> StreamRules:
    """Return the rules of the stream `payments` with these fields changed."""
    return replace(_DEFAULTS, **changes)
