"""Settings that are `auto`: their values before and after they are found."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from config.auto import AUTO_KEYS
from config.auto_sizes import find_sizes, has_auto, with_sizes
from config.setting_classes import apply_shared, select_shared
from config.sizing import EventRate, EventVolume
from config.streams import StreamSettings

ALL_AUTO: dict[str, Any] = {
    "window": {"size": "auto"},
    "threshold": {"percentile": "auto", "look_back": "auto"},
    "model": {"warm_up": "auto"},
}
FIVE_MINUTES = EventVolume(available=4_032, grows=False, rate=EventRate(median_s=1 / 300, mean_s=1 / 300))


def stream(**sections: Any) -> StreamSettings:
    return StreamSettings.model_validate({"source": {"type": "synthetic"}} | sections)


def test_auto_has_the_default_until_it_is_found() -> None:
    settings, plain = stream(**ALL_AUTO), stream()
    assert has_auto(settings)
    assert not has_auto(plain)
    assert (settings.window.size, settings.window.ahead) == (plain.window.size, plain.window.ahead)
    assert (settings.threshold.percentile, settings.threshold.look_back) == (99.5, timedelta(hours=24))
    assert settings.model.warm_up == plain.model.warm_up == 10_000


def test_auto_is_written_as_auto() -> None:
    shared = select_shared(stream(**ALL_AUTO))
    assert {value for content in shared.values() for key, value in content.items() if key in AUTO_KEYS} == {"auto"}
    assert shared["fold"]["window.ahead"] == "auto"
    assert has_auto(apply_shared(stream(), shared))


def test_found_sizes_replace_auto_only() -> None:
    found = find_sizes(stream(**ALL_AUTO), FIVE_MINUTES, 1)
    assert found == {
        "window.size": "1h",
        "threshold.percentile": 99.0,
        "threshold.look_back": "18d",
        "model.warm_up": 806,
    }
    settings = with_sizes(stream(**ALL_AUTO), found)
    assert not has_auto(settings)
    assert (settings.window.size, settings.window.ahead) == (timedelta(hours=1), timedelta(hours=2))
    assert with_sizes(stream(), found) == stream()


@pytest.mark.parametrize(
    ("sections", "found"),
    [
        ({"threshold": {"look_back": "auto"}}, {"threshold.look_back": "18d"}),
        ({"window": {"size": "auto"}}, {"window.size": "1h"}),
        ({"window": {"size": "auto"}, "threshold": {"look_back": "3h"}}, {"window.size": "15m"}),
        ({"window": {"size": "auto", "ahead": "20m"}, "threshold": {"look_back": "30d"}}, {"window.size": "15m"}),
        ({"threshold": {"percentile": "auto", "look_back": "30d"}}, {"threshold.percentile": 99.0}),
    ],
)
def test_found_sizes_respect_the_other_settings(sections: dict[str, Any], found: dict[str, object]) -> None:
    settings = stream(**sections)
    if "percentile" not in sections.get("threshold", {}):
        settings = stream(**sections | {"threshold": sections.get("threshold", {}) | {"percentile": 99}})
    assert find_sizes(settings, FIVE_MINUTES, 1) == found
    assert not has_auto(with_sizes(settings, found))


def test_look_back_is_not_longer_than_the_windows_are_kept() -> None:
    found = find_sizes(stream(**ALL_AUTO), FIVE_MINUTES, 1, longest_look_back=timedelta(days=7))
    assert (found["threshold.look_back"], found["threshold.percentile"]) == ("7d", 95.0)


@pytest.mark.parametrize("sections", [{"window": {"size": "automatic"}}, {"model": {"warm_up": 9}}])
def test_other_words_and_small_numbers_are_rejected(sections: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        stream(**sections)


def test_lead_of_a_fixed_window_may_be_auto() -> None:
    assert stream(window={"size": "1h", "ahead": "auto"}).window.ahead == timedelta(hours=2)
