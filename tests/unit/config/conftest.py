"""Fixtures that load a configuration text, or return the error lines of an invalid one."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from config.errors import ConfigError
from config.loading import load
from config.settings import Settings

ONE_STREAM = "streams: {payments: {source: {type: kafka, topics: [payments]}}}\n"
_EMPTY: Mapping[str, str] = {}


@pytest.fixture
def load_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """Return a function that loads a text as the file outrider.yaml of the working directory."""
    monkeypatch.chdir(tmp_path)

    def read(text: str, env: Mapping[str, str] = _EMPTY) -> Settings:
        Path("outrider.yaml").write_text(text, encoding="utf-8")
        return load(Path("outrider.yaml"), env)

    return read


@pytest.fixture
def problems_of(load_text: Callable[..., Settings]) -> Callable[..., tuple[str, ...]]:
    """Return a function that returns the error lines of an invalid text."""

    def read(text: str, env: Mapping[str, str] = _EMPTY) -> tuple[str, ...]:
        with pytest.raises(ConfigError) as refused:
            load_text(text, env)
        return refused.value.problems

    return read


@pytest.fixture
def problem_of(problems_of: Callable[..., tuple[str, ...]]) -> Callable[..., str]:
    """Return a function that returns the single error line of an invalid text."""

    def read(text: str, env: Mapping[str, str] = _EMPTY) -> str:
        (line,) = problems_of(text, env)
        return line

    return read


@pytest.fixture
def stream_problem(problem_of: Callable[..., str]) -> Callable[[str], str]:
    """Return a function that returns the error line of a stream `s` with topic `t` and further sections."""

    def read(sections: str) -> str:
        return problem_of(f"streams:\n  s:\n    source: {{type: kafka, topics: [t]}}\n    {sections}\n")

    return read
