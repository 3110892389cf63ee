"""The pages of a stream and of its models in a real Chromium: zoom, heat map, slider, keys, loss of contact."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from config.server import ServerSettings
from config.settings import Settings
from monitor.backtest import Outcome
from monitor.server.context import ServerContext
from monitor.server.pages.stream_view import Span, format_zoom
from monitor.server.serve import PageServer
from monitor.server.trials import Trial, TrialCell, TrialIncident, TrialRequest, Trials
from storage.database.engine import Database
from tests.servers.browser import axe_script
from tests.unit.monitor.server.pages.stream_rows import END_US, SPIKE_US, WINDOW_US, fill

pytestmark = pytest.mark.slow
ZOOM = f"zoom={format_zoom(Span(from_us=END_US - 3_600_000_000, until_us=END_US))}"
PAGES = (f"/streams/payments?{ZOOM}", f"/streams/payments/models?{ZOOM}")
"""An hour: axe needs a second for each hundred cells of the tables."""


class FinishedTrials(Trials):
    """Back-tests that have ended: a real one needs the statistics of stored windows."""

    def ask(self, request: TrialRequest) -> Trial:
        """Return an outcome for each cell; a higher percentile has fewer outliers."""
        cells = [
            TrialCell(
                outcome=Outcome(
                    percentile=percentile,
                    false_alarms=budget,
                    windows=288,
                    events=100_000,
                    outliers=round(1_000 * (100 - percentile)),
                    incidents={"spike": 1},
                    alerts_per_day=1.0,
                    promised_per_week=1.0,
                    realised_per_week=7.0,
                ),
                incidents=[TrialIncident(kind="spike", start_us=SPIKE_US, end_us=SPIKE_US + WINDOW_US)],
            )
            for percentile in request.percentiles
            for budget in request.false_alarms
        ]
        return Trial(cells=cells, begin_us=END_US - 288 * WINDOW_US, end_us=END_US)


def serve(url: str) -> PageServer:
    settings = Settings.model_validate(
        {"database": {"url": url}, "streams": {"payments": {"source": {"type": "synthetic"}}}}
    )
    context = ServerContext(settings, ServerSettings(listen="127.0.0.1:0"))
    context.trials = FinishedTrials(settings)
    server = PageServer(context)
    server.start()
    return server


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("stream")
    fill(f"sqlite:///{folder / 'stream.db'}")
    return f"sqlite:///{folder / 'stream.db'}"


@pytest.fixture(scope="module")
def address(url: str) -> Iterator[str]:
    server = serve(url)
    yield server.address.rstrip("/")
    server.stop()


def chart(page: Page, panel: str) -> str:
    return f"[data-panel={panel}] figure[data-drawn]"


def test_charts_are_drawn_from_their_tables_and_zoom_with_each_other(address: str, page: Page) -> None:
    page.goto(f"{address}/streams/payments")
    for panel in ("energy", "outliers", "records"):
        expect(page.locator(f"{chart(page, panel)} canvas")).to_be_visible()
    box = page.locator(f"{chart(page, 'energy')} .u-over").bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.8, middle)
    expect(page.locator(f"{chart(page, 'outliers')} .u-legend")).to_contain_text("Nov")  # the linked cursor
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.95, middle, steps=4)
    page.mouse.up()
    page.wait_for_url(re.compile("zoom="))
    expect(page.locator("[data-panel=head]")).to_contain_text("Show a longer time")
    for panel in ("energy", "outliers"):
        figure = page.locator(chart(page, panel))
        expect(figure.locator("canvas")).to_be_visible()
        shown = page.locator(f"#t-{panel} tbody tr")
        expect(shown).not_to_have_count(288)
        assert 20 < shown.count() < 60, f"{panel} has {shown.count()} rows within the zoom"
    expect(page.locator("[data-panel=energy] .marks")).to_contain_text("before")
    page.keyboard.press("z")
    expect(page.locator("#t-energy tbody tr")).to_have_count(288)
    page.go_back()
    expect(page.locator("#t-energy tbody tr")).not_to_have_count(288)


def test_a_cell_of_the_heat_map_opens_its_numbers_and_is_part_of_the_address(address: str, page: Page) -> None:
    page.goto(f"{address}/streams/payments")
    loads: list[str] = []
    page.on("load", lambda _: loads.append("load"))
    row = page.locator("[data-panel=drift] tbody tr").filter(has_text="age, spread")
    row.first.locator("td a").nth(3).click()
    expect(page.locator("[data-panel=drift] h3")).to_contain_text("age, spread")
    expect(page.locator("[data-panel=drift] td.open")).to_have_count(1)
    assert "cell=" in page.url
    assert loads == []
    page.reload()
    expect(page.locator("[data-panel=drift] h3")).to_contain_text("age, spread")


def test_the_slider_tells_each_threshold_and_keeps_it_in_the_address(address: str, page: Page) -> None:
    page.goto(f"{address}/streams/payments")
    slider = page.get_by_label("Percentile, with a promise of 1/week")
    expect(slider).to_be_visible()
    output = page.locator("[data-panel=try] output")
    expect(output).to_contain_text("At 99.5%")
    page.keyboard.press("t")
    page.keyboard.press("ArrowRight")
    expect(output).to_contain_text("At 99.7%")
    assert "percentile=99.7" in page.url
    expect(page.locator("[data-panel=try] tr.chosen th")).to_have_text("99.7")
    page.locator("[data-panel=try] summary", has_text="As YAML").click()
    expect(page.locator("#yaml-try")).to_contain_text("threshold: {percentile: 99.7}")
    page.reload()
    expect(output).to_contain_text("At 99.7%")


def test_the_grid_and_the_slider_are_filled_without_a_click(address: str, page: Page) -> None:
    page.goto(f"{address}/streams/payments/models")
    expect(page.locator("[data-panel=grid] .gridtable tbody tr")).to_have_count(3)
    expect(page.locator("[data-panel=grid] td.hit")).to_contain_text("in force")


def test_the_keys_of_the_page_are_listed(address: str, page: Page) -> None:
    page.goto(f"{address}/streams/payments")
    expect(page.locator("#percentile")).to_be_visible()  # the slider, which has a key, arrives with the back-test
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    for text in ("Go to the view overview", "Show 7d", "Try a threshold", "Pause or resume"):
        expect(dialog).to_contain_text(text)
    page.keyboard.press("Escape")
    expect(dialog).not_to_be_visible()
    page.keyboard.press("4")
    page.wait_for_url(re.compile("range=7d"))
    page.keyboard.press("m")
    page.wait_for_url(re.compile("/models"))


def test_without_script_every_panel_has_its_drawing_its_table_and_its_links(address: str, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/streams/payments")
    expect(page.locator("[data-panel=energy] .chart svg")).to_be_visible()
    expect(page.locator("[data-live-state]")).to_be_hidden()  # without script the page does not say that it is live
    page.locator("[data-panel=energy] summary", has_text="As a table").click()
    expect(page.locator("#t-energy")).to_be_visible()
    page.locator("[data-panel=drift] tbody td a").first.click()
    expect(page.locator("[data-panel=drift] td.open")).to_have_count(1)
    page.get_by_role("link", name="Run it").click()
    expect(page.locator("[data-panel=try] tbody tr").first).to_be_visible()
    context.close()


def test_without_contact_the_page_says_so_and_nothing_stays_green(url: str, browser: Browser) -> None:
    server = serve(url)
    context = browser.new_context()
    page = context.new_page()
    page.clock.install()
    page.goto(f"{server.address}streams/payments/models")
    expect(page.locator("[data-live-state]")).to_contain_text("live")
    expect(page.locator(".is-well").first).to_be_visible()
    server.stop()
    page.clock.run_for(30_000)
    expect(page.locator("[data-live-state]")).to_contain_text("no contact since")
    assert page.locator(".is-well").count() == 0
    expect(page.locator(".is-unknown").first).to_contain_text("now unknown")
    context.close()


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_accessible_and_fit_320_pixels(address: str, browser: Browser, path: str) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, bypass_csp=True)
    page = context.new_page()
    page.goto(f"{address}{path}")
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


def test_the_pages_keep_their_content_security_policy(address: str, page: Page) -> None:
    reports: list[str] = []
    page.on("console", lambda message: reports.append(message.text) if "Security Policy" in message.text else None)
    page.on("pageerror", lambda error: reports.append(str(error)))
    for path in PAGES:
        page.goto(f"{address}{path}")
        expect(page.locator("figure[data-drawn] canvas").first).to_be_visible()
    assert reports == []


def test_the_database_of_the_pages_is_only_read(url: str) -> None:
    with Database(url, read_only=True) as db, db.read() as conn:
        assert conn.exec_driver_sql("SELECT count(*) FROM incident_verbs").scalar() == 0
