"""Keys whose part is not built are accepted at their default, and refused in so many words otherwise."""

from collections.abc import Callable

import pytest

from config.not_yet import NOT_YET, NotYet, find_not_yet
from config.settings import Settings

from .conftest import ONE_STREAM


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            "alerts: {drift: {horizons: [1h]}}",
            "streams.s.alerts.drift.horizons: not yet: 1h is not built; leave it out",
        ),
    ],
)
def test_a_part_that_is_not_built_is_refused_by_its_key(
    stream_problem: Callable[[str], str], sections: str, said: str
) -> None:
    assert stream_problem(sections) == f"outrider.yaml:4: {said}"


@pytest.mark.parametrize(
    "sections",
    [
        "threshold: {method: pot}",
        "alerts: {silence_after: never}",
        "alerts: {silence_after: 30m}",
        "alerts: {drift: {horizons: [10m, 60m, 24h]}}",
    ],
)
def test_what_is_built_is_accepted_when_written_out(load_text: Callable[..., Settings], sections: str) -> None:
    load_text(f"streams:\n  s:\n    source: {{type: kafka, topics: [t]}}\n    {sections}\n")


def test_each_line_of_the_table_accepts_the_defaults() -> None:
    settings = Settings.model_validate(
        {
            "streams": {"s": {"source": {"type": "kafka", "topics": ["t"]}}},
            "notify": {"channels": {"l": {"type": "log"}}},
        }
    )
    for entry in NOT_YET:
        assert list(find_not_yet(settings, (entry,))) == []


def test_each_line_of_the_table_meets_a_key(load_text: Callable[..., Settings]) -> None:
    settings = load_text("notify: {channels: {l: {type: log}}}\n" + ONE_STREAM)
    for entry in NOT_YET:
        nothing = NotYet(key=entry.key, works=(), meanwhile="wait")
        assert len(list(find_not_yet(settings, (nothing,)))) == 1
