"""The committed script of the page, and the lock file of its build."""

import gzip
import json
from pathlib import Path

import pytest

import monitor

SERVER = Path(monitor.__file__).parent / "server"
WEB = Path(__file__).parents[4] / "monitor" / "server" / "web"
LIMIT_BYTES = 60_000

needs_sources = pytest.mark.skipif(not WEB.exists(), reason="the sources of the script are not in the wheel")


def test_script_and_style_weigh_at_most_60_kb_together_when_compressed():
    assets = [path for path in (SERVER / "static").iterdir() if path.suffix in {".js", ".css"}]
    assert (SERVER / "static" / "outrider.js") in assets
    weight = sum(len(gzip.compress(path.read_bytes(), 9)) for path in assets)
    assert weight <= LIMIT_BYTES


def test_the_script_keeps_the_licence_note_of_uplot_and_loads_nothing_from_elsewhere():
    script = (SERVER / "static" / "outrider.js").read_text()
    assert "MIT License" in script or "(MIT" in script
    for loader in ("importScripts", "import(", "eval(", "cdn."):
        assert loader not in script


@needs_sources
def test_the_lock_file_names_no_package_index():
    lock = json.loads((WEB / "package-lock.json").read_text())
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]
    assert "omit-lockfile-registry-resolved=true" in (WEB / ".npmrc").read_text()


@needs_sources
def test_the_page_depends_on_uplot_alone_in_exact_versions():
    package = json.loads((WEB / "package.json").read_text())
    assert package["dependencies"] == {"uplot": "1.6.32"}
    assert all(version[0].isdigit() for version in package["devDependencies"].values())
