"""The values of a stream's `auto` settings: found from the volume of its events, or read from its stored settings."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from config.auto import AUTO_KEYS, RESOLVED, is_auto
from config.setting_classes import Content, SharedClass, apply_shared, select_shared
from config.sizing import (
    LONGEST_WINDOW,
    MIN_LOOK_BACK_WINDOWS,
    PATIENCE,
    EventVolume,
    FixedSizes,
    SizingAdvice,
    resolve_auto,
)
from config.streams import StreamSettings
from config.units import format_duration


def has_auto(settings: StreamSettings) -> bool:
    """Return whether a setting is `auto` and its value has not been found yet."""
    return any(is_auto(value) for value in _values(settings).values())


def find_sizes(
    settings: StreamSettings, volume: EventVolume, n_features: int, *, longest_look_back: timedelta = PATIENCE
) -> dict[str, Any]:
    """Return the values of the settings that are `auto` by their dotted keys, as the configuration file has them.

    Args:
        settings: The settings of the stream; the values that are not `auto` stay as they are.
        volume: The number and rate of its events.
        n_features: The number of features.
        longest_look_back: A bound on the look-back, such as the retention of windows.
    """
    advice = resolve_auto(volume, n_features, _fixed_sizes(settings, longest_look_back))
    return {key: _found_value(advice, key) for key, value in _values(settings).items() if is_auto(value)}


def with_sizes(settings: StreamSettings, found: Mapping[str, Any]) -> StreamSettings:
    """Return the settings of a stream with the values that were found for settings that are `auto`."""
    contents: dict[SharedClass, Content] = {
        scope: {**content, **{f"{RESOLVED}{key}": value for key, value in found.items() if key in content}}
        for scope, content in select_shared(settings).items()
    }
    return apply_shared(settings, contents)


def stored_sizes(contents: Mapping[SharedClass, Content]) -> dict[str, Any]:
    """Return the found values among the stored settings of a stream, by their dotted keys."""
    return {
        key: content[f"{RESOLVED}{key}"]
        for content in contents.values()
        for key in AUTO_KEYS
        if f"{RESOLVED}{key}" in content
    }


def _values(settings: StreamSettings) -> dict[str, object]:
    return {
        "window.size": settings.window.size,
        "threshold.percentile": settings.threshold.percentile,
        "threshold.look_back": settings.threshold.look_back,
        "model.warm_up": settings.model.warm_up,
    }


def _fixed_sizes(settings: StreamSettings, longest_look_back: timedelta) -> FixedSizes:
    window, threshold = settings.window, settings.threshold
    bounds = [LONGEST_WINDOW, longest_look_back / MIN_LOOK_BACK_WINDOWS]
    if not is_auto(window.ahead):
        bounds.append(window.ahead)
    if not is_auto(threshold.look_back):
        bounds.append(threshold.look_back / MIN_LOOK_BACK_WINDOWS)
    return FixedSizes(
        window=None if is_auto(window.size) else window.size,
        percentile=None if is_auto(threshold.percentile) else threshold.percentile,
        look_back=None if is_auto(threshold.look_back) else threshold.look_back,
        warm_up=None if is_auto(settings.model.warm_up) else settings.model.warm_up,
        longest_window=min(bounds),
        longest_look_back=min(PATIENCE, longest_look_back),
    )


def _found_value(advice: SizingAdvice, key: str) -> str | float | int:
    found: Mapping[str, timedelta | float | int] = {
        "window.size": advice.window,
        "threshold.percentile": advice.percentile,
        "threshold.look_back": advice.look_back,
        "model.warm_up": advice.warm_up,
    }
    value = found[key]
    return format_duration(value) if isinstance(value, timedelta) else value
