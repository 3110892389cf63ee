"""The stored values of settings that are `auto`, for commands that run beside the daemon or before its first start."""

import os
from typing import Any

from config.auto_sizes import has_auto, stored_sizes, with_sizes
from config.errors import ConfigError
from config.settings import Settings
from monitor.daemon.settings_decision import newest_rows
from monitor.daemon.shared_settings import SharedSettings
from monitor.models.first_sizes import find_first_sizes
from monitor.models.training_set import TrainingSet
from storage.control.settings import SettingsStore
from storage.database.engine import Database
from storage.ledger.ledger import Ledger


def read_stored_sizes(db: Database, stream_id: int) -> dict[str, Any]:
    """Return the values that were found for the settings of a stream that are `auto`, by their dotted keys."""
    rows = SettingsStore(db).read_rows(stream_id)
    return stored_sizes({scope: row.content for scope, row in newest_rows(rows).items()}) if rows else {}


def follow_stored_sizes(db: Database, settings: Settings) -> Settings:
    """Return the settings with the stored values of those that are `auto`; without stored ones they stay `auto`."""
    ledger = Ledger(db)
    streams = dict(settings.streams)
    for name, stream in settings.streams.items():
        stream_id = ledger.find_stream(name) if has_auto(stream) else None
        if stream_id is not None:
            streams[name] = with_sizes(stream, read_stored_sizes(db, stream_id))
    return settings.model_copy(update={"streams": streams})


def find_fitted_sizes(
    db: Database, settings: Settings, stream: str, stream_id: int, training: TrainingSet | None
) -> dict[str, Any]:
    """Return the values to store with a model that is fitted by a command; empty if none is missing.

    Before the first start of the daemon the settings of the file are stored as well, so that the values have a place.

    Args:
        db: The database.
        settings: The settings, with the stored values of those that are `auto`.
        stream: Name of the stream.
        stream_id: The stream.
        training: The events of the fit; None for a model without events.

    Raises:
        ConfigError: Values are missing, and there are no events to find them from.
    """
    own = settings.streams[stream]
    if not has_auto(own):
        return {}
    if training is None:
        raise ConfigError(
            f"stream {stream}: settings are auto, and a model without events cannot tell the rate of the stream: write "
            "numbers (`outrider init` finds them), or fit the first model with `outrider run` or `outrider fit`"
        )
    if not SettingsStore(db).read_rows(stream_id):
        shared = SharedSettings(settings, stream, SettingsStore(db), owner=f"fit:{os.getpid()}")
        shared.join(stream_id)
        shared.leave()
    return find_first_sizes(own, training, available=None, longest_look_back=settings.retention.windows)
