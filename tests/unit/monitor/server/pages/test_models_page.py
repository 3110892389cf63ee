"""The page of models: pure parts, and the page over HTTP from stored rows."""

import csv
import io
import re

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from config.settings import Settings
from monitor.server.app import create_app
from monitor.server.context import ServerContext
from monitor.server.pages.model_sides import build_sides, list_gate_tests
from storage.database.engine import Database
from storage.database.tables import calibrations, incidents, streams
from storage.queries.model_facts import Agreement, ModelFacts
from tests.unit.monitor.server.pages.stream_rows import END_US, fill

PAGE = "/streams/payments/models"
AGREEMENT = Agreement(
    windows=288, events=10_000, both=30, active_only=20, shadow_only=10, neither=9_940, span_us=86_400_000_000
)
GATE = {
    "holds": False,
    "reason": "a clean event costs 0.315 nats more",
    "windows": 300,
    "clean_windows": 280,
    "events": 168_203,
    "flagged_share": 0.005,
    "nominal_share": 0.005,
    "would_fire": 0,
    "may_fire": 3,
    "energy_difference": 0.315,
    "standard_error": 0.0046,
}


def model(version=1, state="active", **changes):
    facts = {
        "id": version,
        "version": version,
        "kind": "gaussian_mixture",
        "state": state,
        "created_at_us": 0,
        "activated_us": 0,
        "held_out_energy": 17.1,
        "feature_names": ("a",),
        "summary": {"events": 10_000, "n_components": 3},
        "shadow_since_us": None,
        "shadow_threshold": None,
        "shadow_due_us": None,
        "gate": None,
        "agreement": None,
    }
    return ModelFacts(**(facts | changes))


def test_the_shadow_model_stands_beside_the_active_one_with_the_share_of_common_flags():
    shadow = model(3, "shadow", agreement=AGREEMENT, gate=GATE)
    sides = build_sides("s", [shadow, model(2, "retired"), model(1)], None)
    assert sides.other is shadow and sides.active.version == 1
    share, low, high = sides.jaccard
    assert share == pytest.approx(0.5)
    assert low < share < high
    rows = {row.name: row for row in sides.rows}
    assert (rows["Flags a day"].active, rows["Flags a day"].other, rows["Flags a day"].difference) == (
        "50",
        "40",
        "−10",
    )
    assert sides.headline == "s: model 1 is active, model 3 is on trial beside it"


def test_a_stream_with_one_model_says_how_a_second_one_comes():
    sides = build_sides("s", [model()], None)
    assert sides.other is None and sides.tests == [] and "--shadow" in sides.advice
    assert build_sides("s", [], None).headline == "s: no model is active yet"


def test_the_gate_lists_its_tests_with_the_figure_that_each_needs():
    tests = {test.name: test for test in list_gate_tests(model(2, "candidate", gate=GATE), 99.5)}
    assert [test.holds for test in tests.values()] == [True, True, True, True, False]
    assert tests["Mean energy not worse, nats"].needed == "0.029 or less"
    assert tests["Clean events scored"].needed == "10,000 or more"


def test_a_gate_without_evidence_is_open_and_says_what_is_missing():
    tests = list_gate_tests(model(2, "shadow", agreement=AGREEMENT), 99.9)
    assert [test.holds for test in tests] == [True, None, None, None]
    assert tests[1].needed == "50,000 or more"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    url = f"sqlite:///{tmp_path_factory.mktemp('models') / 'models.db'}"
    fill(url)
    with Database(url) as db, db.write() as conn:
        conn.execute(sa.update(streams).values(last_tick_us=END_US))
        conn.execute(sa.update(incidents).where(incidents.c.id == 1).values(verdict="false_alarm"))
        conn.execute(sa.update(incidents).where(incidents.c.id == 2).values(verdict="confirmed"))
        for hours in (36, 0):
            conn.execute(
                sa.insert(calibrations).values(
                    stream_id=1,
                    at_us=END_US - hours * 3_600_000_000,
                    promised_per_week=1.0,
                    state="provisional",
                    precision=0.5,
                    precision_lower=0.01,
                    precision_upper=0.99,
                )
            )
    settings = Settings.model_validate(
        {"database": {"url": url}, "streams": {"payments": {"source": {"type": "synthetic"}}}}
    )
    context = ServerContext(settings)
    with TestClient(create_app(context, port=80), base_url="http://127.0.0.1") as client:
        yield client
    context.close()


def test_the_page_shows_its_panels_and_starts_no_back_test_by_itself(client):
    page = client.get(PAGE)
    assert page.status_code == 200
    for heading in ("Side by side", "Gate of model 1", "Back-test grid", "Threshold history", "Promise ledger"):
        assert f">{heading}</h2>" in page.text
    assert "could not be read" not in page.text and "style=" not in page.text
    assert "Run it" in page.text and "data-lazy" in page.text
    assert "model 2 is active, model 1 was active before" in page.text


def test_the_ledger_counts_true_false_and_undecided_incidents_apart(client):
    (row,) = csv.DictReader(io.StringIO(client.get(f"{PAGE}/ledger.csv").text))
    assert [row[name] for name in ("True", "False", "Accepted", "Without a verdict")] == ["1", "1", "0", "1"]
    assert float(row["Realised from"]) < float(row["Realised a week"]) < float(row["Realised to"])
    assert float(row["Realised a week"]) == pytest.approx(1 / (36 / 168), rel=1e-3)


def test_the_threshold_history_is_the_schedule_of_the_time(client):
    rows = list(csv.DictReader(io.StringIO(client.get(f"{PAGE}/thresholds.csv").text)))
    assert len(rows) == 96
    assert rows[-1]["Threshold (nats)"] == "28.430"
    assert 'data-mark="model"' in client.get(PAGE).text


def test_addresses_that_are_not_valid_are_refused(client):
    assert client.get(f"{PAGE}/none.csv").status_code == 404
    assert client.get("/streams/none/models").status_code == 404
    assert client.get("/models", follow_redirects=False).headers["location"] == PAGE


def test_a_promotion_needs_the_token_of_the_page_and_a_refused_one_says_why(client):
    page = client.get(PAGE).text
    token = re.search(r'name="csrf" value="([^"]+)"', page).group(1)
    origin = {"Origin": "http://127.0.0.1"}
    assert client.post(f"{PAGE}/1/promote", data={"csrf": "guessed"}, headers=origin).status_code == 403
    missing = client.post(f"{PAGE}/9/promote", data={"csrf": token}, headers=origin)
    assert missing.status_code == 409
    assert "has no model 9" in missing.text and 'role="alert"' in missing.text
    assert client.post("/streams/none/models/rollback", data={"csrf": token}, headers=origin).status_code == 404


def test_a_model_whose_gate_did_not_hold_cannot_be_promoted_from_the_page():
    sides = build_sides("s", [model(2, "candidate", gate=GATE), model(1)], None)
    assert "gate did not hold" in sides.promote_refusal and sides.former is None
    assert build_sides("s", [model(3, "shadow"), model(2), model(1, "retired")], None).promote_refusal is None
    other = model(2, "shadow", feature_names=("b",))
    assert "other features" in build_sides("s", [other, model(1)], None).promote_refusal
