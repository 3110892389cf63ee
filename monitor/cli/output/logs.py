"""Log output of the commands: text on a terminal, JSON lines elsewhere."""

import json
import logging
import sys
from typing import Literal

from config.time_format import format_time

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formatter that writes one JSON object per line: time, level, logger, message, and the record's extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        fields = {key: value for key, value in vars(record).items() if key not in _STANDARD_FIELDS}
        line = {
            "time": format_time(round(record.created * 1e6)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line | fields, default=str)


def set_up_logging(
    level: Literal["debug", "info", "warning", "error"] = "info",
    output_format: Literal["auto", "text", "json"] = "auto",
) -> None:
    """Send the log to standard error; replaces the handlers of the root logger. May be called again.

    Args:
        level: The least severe messages that are logged.
        output_format: `auto` writes text on a terminal and JSON elsewhere.
    """
    debug = level == "debug"
    handler = logging.StreamHandler(sys.stderr)
    if output_format == "text" or (output_format == "auto" and sys.stderr.isatty()):
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    else:
        handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("apscheduler", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING if not debug else logging.INFO)
    # The client logs a dozen lines per failed connection. Outrider logs one, with the remedy.
    logging.getLogger("kafka").setLevel(logging.CRITICAL if not debug else logging.INFO)
