"""Replay of a fixed file: every SQL view holds the same rows on both databases, and those of the golden dump."""

import json
import math
from pathlib import Path

import pytest

from tests.replay.dump import VIEWS
from tests.replay.golden import golden_lines, read_golden
from tests.replay.run import replay
from tests.servers.postgres import PostgresServer

pytestmark = [pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer) -> dict[str, list[str]]:
    """The dump of each database."""
    folder: Path = tmp_path_factory.mktemp("replay")
    return {
        "sqlite": replay(folder, "sqlite", f"sqlite:///{folder / 'replay.db'}"),
        "postgresql": replay(folder, "postgresql", postgres_server.create_database()),
    }


@pytest.mark.postgres
def test_both_databases_hold_the_same_rows_in_every_view(dumps: dict[str, list[str]]) -> None:
    differing = [(a, b) for a, b in zip(dumps["sqlite"], dumps["postgresql"], strict=True) if a != b]
    assert differing == []


@pytest.mark.postgres
def test_the_replay_covers_every_view_that_a_file_can_fill(dumps: dict[str, list[str]]) -> None:
    filled = {line.split(" ", 1)[0] for line in dumps["sqlite"]} - {"#"}
    assert filled == set(VIEWS) - {"gap_history"}, "a file has no gaps"


@pytest.mark.postgres
def test_the_replay_equals_the_golden_dump_to_rounding(dumps: dict[str, list[str]]) -> None:
    found, wanted = golden_lines(dumps["sqlite"]), read_golden()
    assert len(found) == len(wanted)
    differing = [(a, b) for a, b in zip(found, wanted, strict=True) if not _is_close(json.loads(a), json.loads(b))]
    assert differing == []


def _is_close(found: object, wanted: object) -> bool:
    """Compare numbers to 0.1%: another processor may round the last bits of an energy in another way."""
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(_is_close(a, b) for a, b in zip(found, wanted, strict=True))
    if isinstance(found, float) and isinstance(wanted, float | int):
        return math.isclose(found, wanted, rel_tol=1e-3, abs_tol=1e-6)
    return found == wanted
