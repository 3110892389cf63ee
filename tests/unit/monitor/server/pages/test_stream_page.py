"""The page of a stream over HTTP, from stored rows."""

import csv
import io
import re

import pytest
from fastapi.testclient import TestClient

from config.settings import Settings
from config.time_format import HOUR_US, MINUTE_US
from monitor.server.app import create_app
from monitor.server.context import ServerContext
from monitor.server.pages.formats import iso
from monitor.server.pages.stream_view import Span, format_zoom
from storage.database.engine import Database
from tests.unit.monitor.server.pages.stream_rows import END_US, SPIKE_US, WINDOWS, fill

PAGE = "/streams/payments"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    url = f"sqlite:///{tmp_path_factory.mktemp('page') / 'page.db'}"
    fill(url)
    return url


@pytest.fixture(scope="module")
def client(url):
    settings = Settings.model_validate(
        {"database": {"url": url}, "streams": {"payments": {"source": {"type": "synthetic"}}}}
    )
    context = ServerContext(settings)
    with TestClient(create_app(context, port=80), base_url="http://127.0.0.1") as client:
        yield client
    context.close()


def rows_of(client, panel, **parameters):
    answer = client.get(f"{PAGE}/{panel}.csv", params=parameters)
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.text)))


def twin_rows(html, panel):
    table = re.search(rf'<table id="t-{panel}">.*?</table>', html, re.DOTALL).group(0)
    return [re.findall(r"<td>(.*?)</td>", row) for row in table.split("<tbody>")[1].split("</tr>")[:-1]]


def test_the_page_shows_its_panels_and_states_without_script(client):
    page = client.get(PAGE)
    assert page.status_code == 200
    for heading in ("Energy per window", "Outliers per window", "Drift", "Features", "Records"):
        assert f">{heading}</h2>" in page.text
    assert "Drift, open" in page.text
    assert "could not be read" not in page.text
    assert page.text.count("<svg") > 10
    assert "style=" not in page.text
    assert "<b>&" not in page.text


def test_a_chart_its_table_and_its_csv_have_the_same_numbers(client):
    html = client.get(PAGE).text
    for panel in ("energy", "outliers", "records"):
        downloaded = [["" if value is None else value for value in row.values()] for row in rows_of(client, panel)]
        assert twin_rows(html, panel) == downloaded
        assert len(downloaded) == 288


def test_the_sql_of_a_panel_returns_the_numbers_of_its_csv(client, url):
    html = client.get(PAGE).text
    for panel, column in (("energy", 4), ("outliers", 1), ("records", 1)):
        text = re.search(rf'SQL: {panel}">(.*?)</pre>', html, re.DOTALL).group(1)
        sql = text.replace("&#39;", "'").replace("&gt;", ">").replace("&lt;", "<").replace("&#34;", '"')
        with Database(url, read_only=True) as db, db.read() as conn:
            found = [row[column] for row in conn.exec_driver_sql(sql)]
        shown = [float(list(row.values())[column]) for row in rows_of(client, panel)]
        assert found == pytest.approx(shown)


def test_the_threshold_of_a_window_is_the_one_in_force_and_says_when_it_was_held(client):
    rows = rows_of(client, "energy", range="28d")
    methods = {row["Method"] for row in rows}
    assert methods == {"plain", "plain, held"}
    assert 'data-mark="held"' in client.get(PAGE, params={"range": "28d"}).text


def test_the_expected_band_contains_the_mean_and_excludes_the_spike(client):
    spike = rows_of(client, "outliers")[-36]
    assert int(spike["Outliers"]) == 60 and int(spike["Fires at"]) == 13
    assert int(spike["5%"]) < float(spike["Expected"]) < int(spike["95%"]) < 13


def test_marks_outside_the_zoom_are_counted_at_the_edges_and_lead_there(client):
    zoom = format_zoom(Span(from_us=SPIKE_US - HOUR_US, until_us=SPIKE_US + 30 * MINUTE_US))
    html = client.get(PAGE, params={"zoom": zoom}).text
    assert "◂ 1 before" in html and "1 after ▸" in html
    assert html.count('data-mark="critical"') == 2  # once in each of two charts
    link = re.search(r'<a href="([^"]+)"[^>]*>1 after', html).group(1).replace("&amp;", "&")
    assert 'data-mark="warning"' in client.get(link).text


def test_long_times_are_drawn_from_few_rows(client):
    assert len(rows_of(client, "energy", range="28d")) == WINDOWS  # without roll-ups: all windows of the stream
    assert len(rows_of(client, "energy", range="1h")) == 12


def test_one_panel_is_answered_alone(client):
    html = client.get(PAGE, params={"panel": "drift"}).text
    assert re.findall(r'data-panel="(\w+)"', html) == ["drift"]
    assert re.findall(r'data-panel="(\w+)"', client.get(PAGE, params={"panel": "head"}).text) == ["head"]


def test_the_heat_map_opens_the_newest_cell_above_its_limit(client):
    html = client.get(PAGE, params={"panel": "drift"}).text
    assert "▲ −20.0" in html
    assert "age, level" in html
    assert "z −20.0, limit 5.0" in html
    assert "1 more statistics" in html  # the pair stays below 3.5
    cell = f"{iso(END_US - 5 * HOUR_US)}~spread:age"
    opened = client.get(PAGE, params={"panel": "drift", "cell": cell}).text
    assert "age, spread," in opened and "z 2.5, limit 5.0" in opened


def test_every_statistic_of_every_horizon_is_in_the_csv_of_the_heat_map(client):
    rows = rows_of(client, "drift")
    assert len(rows) == 24 * 5
    assert {row["Statistic"] for row in rows} == {"rank", "spread", "pair"}


def test_a_panel_that_cannot_be_read_says_so_and_leaves_the_others(client, monkeypatch):
    from monitor.server.pages import stream_drift

    def fail(*_args, **_kwargs):
        raise RuntimeError("broken")

    monkeypatch.setattr(stream_drift, "list_horizons", fail)
    html = client.get(PAGE).text
    assert html.count("This panel could not be read") == 1
    assert 'id="t-energy"' in html


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/streams/none", 404),
        (f"{PAGE}?range=3y", 422),
        (f"{PAGE}?zoom=yesterday", 422),
        (f"{PAGE}?zoom=2026-11-30T10:00~2026-11-30T11:00", 422),
        (f"{PAGE}?zoom=2026-11-30T11:00:00Z~2026-11-30T10:00:00Z", 422),
        (f"{PAGE}?cell=x", 422),
        (f"{PAGE}/none.csv", 404),
        (f"{PAGE}?model=0", 422),
    ],
)
def test_addresses_that_are_not_valid_are_refused(client, path, status):
    assert client.get(path).status_code == status


def test_a_model_restricts_the_charts_to_its_windows(client):
    assert len(rows_of(client, "energy", range="28d", model=2)) == 20 * 12


def test_the_only_stream_is_the_page_of_all_streams(client):
    assert client.get("/streams", follow_redirects=False).headers["location"] == PAGE
