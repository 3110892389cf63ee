"""The page on metrics lists exactly the metrics of the exposition."""

import re
from pathlib import Path

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from monitor.metrics.exposition import render_metrics
from tests.unit.monitor.metrics.test_exposition import FACTS, PROCESS, PROGRESS, counted

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


def test_the_page_lists_exactly_the_metrics_of_the_exposition() -> None:
    rows = [line.split("|") for line in PAGE.read_text().splitlines() if line.startswith("| `outrider_")]
    documented = {name: row[2].strip() for row in rows for name in re.findall(r"`(outrider_\w+)`", row[1])}
    rendered = render_metrics(counted(), PROGRESS, FACTS, PROCESS)
    families = list(text_string_to_metric_families(rendered.open_metrics.decode()))  # type: ignore[no-untyped-call]
    suffixes = {"counter": "_total", "info": "_info"}
    own = {each.name + suffixes.get(each.type, ""): each.type.replace("stateset", "state set") for each in families}
    assert documented == own
