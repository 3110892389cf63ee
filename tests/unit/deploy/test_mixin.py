"""Alert rules and dashboard name metrics, labels, views and columns that exist."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from prometheus_client.parser import text_string_to_metric_families

from monitor.metrics.exposition import render_metrics
from storage.database.engine import Database
from storage.database.migrations.upgrade import upgrade
from tests.unit.monitor.metrics.test_exposition import FACTS, PROCESS, PROGRESS, counted

MIXIN = Path(__file__).parents[3] / "deploy" / "mixin"
RULES: list[dict[str, Any]] = yaml.safe_load((MIXIN / "alerts.yaml").read_text())["groups"][0]["rules"]
PANELS: list[dict[str, Any]] = json.loads((MIXIN / "dashboards" / "outrider.json").read_text())["panels"]
_SELECTOR = re.compile(r"(outrider_\w+)(\{[^}]*\})?")
_GROUPING = re.compile(r"\bby \(([^)]*)\)")


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in RULES)
    yield from (target["expr"] for panel in PANELS for target in panel["targets"] if "expr" in target)


def known_labels() -> dict[str, set[str]]:
    """Return the labels of each series of the exposition."""
    text = render_metrics(counted(), PROGRESS, FACTS, PROCESS).text.decode()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_each_expression_names_metrics_and_labels_that_exist(expression: str) -> None:
    known = known_labels()
    without_selectors = _SELECTOR.sub(" ", expression)
    named = list(_SELECTOR.finditer(expression))
    metrics = {found[1] for found in named}
    assert metrics
    assert not metrics - set(known)
    labels = set().union(*(known[metric] for metric in metrics))
    for found in named:
        for label in re.findall(r"(\w+)\s*=", found[2] or ""):
            assert label in known[found[1]]
    for grouping in _GROUPING.findall(without_selectors):
        assert {label.strip() for label in grouping.split(",")} <= labels


def test_each_rule_has_a_name_of_its_own_a_severity_and_an_action() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES) >= 12
    for rule in RULES:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "description"}


def test_the_queries_of_the_dashboard_run_on_the_views(tmp_path: Path) -> None:
    queries = [target["rawSql"] for panel in PANELS for target in panel["targets"] if "rawSql" in target]
    assert len(queries) == 4
    with Database(f"sqlite:///{tmp_path / 'outrider.db'}") as db:
        upgrade(db)
        with db.read() as conn:
            for query in queries:
                conn.execute(sa.text(re.sub(r"\$__timeFilter\((\w+)\)", r"\1 IS NOT NULL", query)))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool of the package prometheus is not installed")
def test_promtool_accepts_the_rules() -> None:
    command = ["promtool", "check", "rules", MIXIN / "alerts.yaml"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
