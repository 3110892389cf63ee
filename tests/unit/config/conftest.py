"""Ways to load a configuration text, and to see what is said about a wrong one."""

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
    """Load a text as the file outrider.yaml of the working directory."""
    monkeypatch.chdir(tmp_path)

    def read(text: str, env: Mapping[str, str] = _EMPTY) -> Settings:
        Path("outrider.yaml").write_text(text, encoding="utf-8")
        return load(Path("outrider.yaml"), env)

    return read


@pytest.fixture
def problems_of(load_text: Callable[..., Settings]) -> Callable[..., tuple[str, ...]]:
    """Return the lines that are said about a text that cannot be used."""

    def read(text: str, env: Mapping[str, str] = _EMPTY) -> tuple[str, ...]:
        with pytest.raises(ConfigError) as refused:
            load_text(text, env)
        return refused.value.problems

    return read


@pytest.fixture
def problem_of(problems_of: Callable[..., tuple[str, ...]]) -> Callable[..., str]:
    """Return the one line that is said about a text that cannot be used."""

    def read(text: str, env: Mapping[str, str] = _EMPTY) -> str:
        (line,) = problems_of(text, env)
        return line

    return read


@pytest.fixture
def stream_problem(problem_of: Callable[..., str]) -> Callable[[str], str]:
    """Return the one line about a stream `s` that reads the topic `t` and has these further sections."""

    def read(sections: str) -> str:
        return problem_of(f"streams:\n  s:\n    source: {{type: kafka, topics: [t]}}\n    {sections}\n")

    return read
