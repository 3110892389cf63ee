"""The recipes of docs/sql.md run on both databases and use an index."""

import re
from pathlib import Path

import pytest
import sqlalchemy as sa

from storage.database.engine import Database
from storage.database.partitions import ensure_score_partitions

_DOCUMENT = (Path(__file__).parents[3] / "docs" / "sql.md").read_text()
_SECTION = _DOCUMENT.partition("## Recipes\n")[2].partition("\n## ")[0]
RECIPES = re.findall(r"```sql\n(.*?)```", _SECTION, re.DOTALL)
_LONG_TABLES = ("outliers", "scores", "windows", "thresholds", "incidents", "notifications", "incident_verbs")
_SMALL_TABLES = "streams|sources|models|habitual_keys|st|so|m|h"


def explain(db: Database, recipe: str) -> str:
    """Return the plan of a query; the planner of PostgreSQL prefers a scan of an empty table if it is allowed to."""
    with db.read() as conn:
        if db.dialect == "sqlite":
            return "\n".join(str(row[-1]) for row in conn.execute(sa.text(f"EXPLAIN QUERY PLAN {recipe}")))
        conn.execute(sa.text("SET LOCAL enable_seqscan = off"))
        return "\n".join(str(row[0]) for row in conn.execute(sa.text(f"EXPLAIN {recipe}")))


@pytest.mark.parametrize("recipe", [each.rstrip().rstrip(";") for each in RECIPES])
def test_a_recipe_reads_no_long_table_from_end_to_end(upgraded_url: str, recipe: str) -> None:
    with Database(upgraded_url) as db:
        ensure_score_partitions(db)  # another test of this database may have dropped all of them
        with db.read() as conn:
            assert conn.execute(sa.text(recipe)).all() == []
        plan = explain(db, recipe)
    if db.dialect == "sqlite":
        scanned = re.findall(r"SCAN (\w+)", plan)
        assert not set(scanned) - set(_SMALL_TABLES.split("|")), plan
        assert "SEARCH" in plan
    else:
        scanned = [name.partition("_p")[0] for name in re.findall(r"Seq Scan on (\w+)", plan)]
        assert not set(scanned) & set(_LONG_TABLES), plan
        assert re.search(r"Index (Only )?Scan|Bitmap Index Scan", plan), plan


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 9
