"""A burst and a drift appear on the open page, and people act on incidents from it, also without a mouse or script."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from monitor.control_plane.model_cache import ModelCache
from monitor.control_plane.preview import recompute_tick
from monitor.daemon.verbs import apply_configured_verb, read_rule_schedule
from monitor.incidents.verb_plan import VerbRequest
from monitor.incidents.verbs import Verb
from monitor.server.pages.formats import together
from storage.control.models import ModelStore
from storage.control.preview import PreviewThresholdStore
from storage.control.verbs import VerbStore
from storage.database.engine import Database
from storage.queries.incident_list import IncidentFilter, ListedIncident, list_incidents
from tests.browser.conftest import WatchedDemo
from tests.browser.demo_stream import RunningDemo
from tests.servers.browser import axe_script

pytestmark = pytest.mark.slow
_PICTURE = Path(__file__).parents[2] / "docs" / "images" / "incident.png"


@pytest.fixture
def demo(watched: WatchedDemo) -> RunningDemo:
    return watched.demo


def find_incidents(demo: RunningDemo, kind: str) -> list[ListedIncident]:
    """Return the incidents of a kind, the newest first."""
    with Database(demo.settings.database.url) as db, db.read() as connection:
        return list_incidents(connection, IncidentFilter(kind=kind), limit=50)


def read_incident(demo: RunningDemo, incident_id: int) -> ListedIncident:
    with Database(demo.settings.database.url) as db, db.read() as connection:
        return next(each for each in list_incidents(connection, IncidentFilter(), limit=50) if each.id == incident_id)


def computed_threshold(demo: RunningDemo, incident_id: int) -> list[str]:
    """Compute the last tick again from the stored windows; return threshold and interval as the page writes them."""
    with Database(demo.settings.database.url) as db:
        facts = VerbStore(db).facts(incident_id)
        assert facts is not None
        store = PreviewThresholdStore(db, facts, None)
        stored = store.last_tick()
        models = ModelCache(facts.stream, ModelStore(db))
        row = recompute_tick(db, store, facts, read_rule_schedule(db, demo.settings, facts), models)
    assert row is not None
    assert stored is not None
    return together([stored.stored.threshold, row.threshold, row.lower, row.upper], 4)


def press(page: Page, name: str) -> None:
    """Press a button with the keyboard alone."""
    button = page.get_by_role("button", name=name, exact=True)
    for _ in range(200):
        page.keyboard.press("Tab")
        if button.evaluate("each => each === document.activeElement"):
            break
    expect(button).to_be_focused()
    page.keyboard.press("Enter")


def test_burst_and_drift_appear_without_a_reload(watched: WatchedDemo) -> None:
    assert watched.seen == ("spike", "drift")
    assert watched.loads == 0


def test_an_incident_is_acknowledged_from_the_overview(demo: RunningDemo, page: Page) -> None:
    (drift, *_) = find_incidents(demo, "drift")
    page.goto(demo.address)
    page.get_by_role("button", name=f"Acknowledge incident {drift.id}").click()
    row = page.locator("[data-panel=incidents] tbody tr").filter(has_text="drift").first
    expect(row).to_contain_text("acknowledged by local")
    assert read_incident(demo, drift.id).is_acknowledged


def test_a_spike_is_accepted_by_keyboard_and_the_threshold_is_the_announced_one(demo: RunningDemo, page: Page) -> None:
    (spike, *_) = find_incidents(demo, "spike")
    assert spike.status == "open", "the stream ends within a burst"
    page.goto(f"{demo.address}/incidents/{spike.id}")
    announced = page.locator("#d-accept strong").inner_text()
    press(page, "This is normal now")
    expect(page.locator("[data-panel=timeline]")).to_contain_text("accepted it as normal")
    assert read_incident(demo, spike.id).verdict == "accepted"
    _, after, lower, upper = computed_threshold(demo, spike.id)
    assert f"{after} nats ({lower} to {upper})" in announced


def test_a_false_alarm_is_marked_with_its_reason(demo: RunningDemo, page: Page) -> None:
    spike = find_incidents(demo, "spike")[1]
    page.goto(f"{demo.address}/incidents/{spike.id}")
    announced = page.locator("#d-false_alarm strong").inner_text()
    page.get_by_label("Reason").select_option("known campaign")
    page.get_by_role("button", name="False alarm").click()
    expect(page.locator("[data-panel=timeline]")).to_contain_text("called it a false alarm: “known campaign”")
    _, after, lower, upper = computed_threshold(demo, spike.id)
    assert f"{after} nats ({lower} to {upper})" in announced


def test_a_mute_is_added_and_ended_on_the_page_of_an_incident(demo: RunningDemo, page: Page) -> None:
    page.goto(f"{demo.address}/incidents/{find_incidents(demo, 'drift')[0].id}")
    panel = page.locator("[data-panel=mutes]")
    page.get_by_label("Messages of").select_option("each drift of payments")
    page.get_by_role("button", name="Mute", exact=True).click()
    expect(panel).to_contain_text("Each drift of payments until")
    panel.get_by_role("button", name=re.compile("End mute")).click()
    expect(panel).to_contain_text("No mute is in force")


def test_a_changed_basis_gives_a_new_preview_and_changes_nothing(demo: RunningDemo, page: Page) -> None:
    spikes = find_incidents(demo, "spike")
    page.goto(f"{demo.address}/incidents/{spikes[2].id}")
    with Database(demo.settings.database.url) as db:
        facts = VerbStore(db).facts(spikes[3].id)
        assert facts is not None
        apply_configured_verb(db, demo.settings, facts, VerbRequest(verb=Verb.FALSE_ALARM, who="anna"), None)
    with page.expect_response(lambda response: response.request.method == "POST") as answer:
        page.get_by_role("button", name="False alarm").click()
    assert answer.value.status == 412
    expect(page.get_by_role("alert")).to_contain_text("Nothing was changed")
    assert read_incident(demo, spikes[2].id).verdict is None
    page.get_by_role("button", name="False alarm").click()
    expect(page.locator("[data-panel=timeline]")).to_contain_text("called it a false alarm")


def test_verbs_work_without_script(demo: RunningDemo, browser: Browser) -> None:
    spike = find_incidents(demo, "spike")[4]
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{demo.address}/incidents/{spike.id}")
    expect(page.locator("table.why tbody tr")).to_have_count(5)
    page.get_by_role("button", name="True alarm").click()
    expect(page.locator("[data-panel=timeline]")).to_contain_text("confirmed it as a true alarm")
    context.close()


@pytest.mark.parametrize("path", ["/", "/incidents", "/incidents/spike", "/incidents/drift", "/login"])
def test_pages_are_accessible_and_fit_320_pixels(demo: RunningDemo, browser: Browser, path: str) -> None:
    path = re.sub("(spike|drift)$", lambda kind: str(find_incidents(demo, kind[0])[0].id), path)
    # axe-core is a script that the policy of the page forbids.
    context = browser.new_context(viewport={"width": 1280, "height": 900}, bypass_csp=True)
    page = context.new_page()
    page.goto(f"{demo.address}{path}")
    page.add_script_tag(content=axe_script())
    page.eval_on_selector_all("details", "all => all.forEach(each => each.open = true)")
    for width, scheme in ((1280, "light"), (320, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme="light" if scheme == "light" else "dark")
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        violations = [(each["id"], [node["html"][:120] for node in each["nodes"]]) for each in found["violations"]]
        assert violations == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def test_no_page_breaks_its_content_security_policy(demo: RunningDemo, page: Page) -> None:
    reports: list[str] = []
    page.on("console", lambda message: reports.append(message.text) if "Security Policy" in message.text else None)
    for path in ("/", "/incidents", f"/incidents/{find_incidents(demo, 'spike')[0].id}", "/login"):
        page.goto(f"{demo.address}{path}")
    assert reports == []
