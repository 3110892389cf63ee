"""Keys whose part is not built are accepted at what works, and refused in so many words otherwise."""

from collections.abc import Callable

import pytest

from config.not_yet import NOT_YET, NotYet, find_not_yet
from config.settings import Settings

from .conftest import ONE_STREAM

STREAM = "streams:\n  s:\n    source: {type: kafka, topics: [t]}\n"
HORIZONS = NotYet(key="streams.*.alerts.drift.horizons", works=(["10m", "1h", "1d"],), meanwhile="leave it out")


def test_a_part_that_is_not_built_is_refused_by_its_key(load_text: Callable[..., Settings]) -> None:
    settings = load_text(STREAM + "    alerts: {drift: {horizons: [1h]}}\n")
    path = ("streams", "s", "alerts", "drift", "horizons")
    assert list(find_not_yet(settings, (HORIZONS,))) == [(path, "not yet: 1h is not built; leave it out")]


def test_what_works_is_accepted_when_written_out(load_text: Callable[..., Settings]) -> None:
    settings = load_text(STREAM + "    alerts: {drift: {horizons: [10m, 60m, 24h]}}\n")
    assert list(find_not_yet(settings, (HORIZONS,))) == []


@pytest.mark.parametrize(
    "sections",
    [
        "threshold: {method: pot}",
        "alerts: {silence_after: never}",
        "alerts: {silence_after: 30m}",
        "alerts: {drift: {horizons: [1h]}}",
    ],
)
def test_what_is_built_is_accepted(load_text: Callable[..., Settings], sections: str) -> None:
    settings = load_text(f"{STREAM}    {sections}\n")
    assert list(find_not_yet(settings)) == []


def test_each_line_of_the_table_meets_a_key_and_accepts_the_defaults(load_text: Callable[..., Settings]) -> None:
    settings = load_text("notify: {channels: {l: {type: log}}}\n" + ONE_STREAM)
    for entry in (*NOT_YET, HORIZONS):
        nothing = NotYet(key=entry.key, works=(), meanwhile="wait")
        assert len(list(find_not_yet(settings, (nothing,)))) == 1
        assert list(find_not_yet(settings, (entry,))) == []
