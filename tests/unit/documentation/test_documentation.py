"""The documentation names only what exists, and its generated pages follow the code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("config", "consumers", "storage", "monitor", "tests", "benchmarks", "docs")
pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the wheel is tested without the documentation")


@pytest.mark.slow
def test_the_generated_reference_pages_are_up_to_date() -> None:
    command = [sys.executable, "docs/generate.py", "--check"]
    found = subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=False
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_path_in_the_contributor_pages_exists() -> None:
    for page in ("ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"):
        text = (ROOT / page).read_text()
        paths = set(re.findall(rf"(?<![\w/.])(?:{'|'.join(PACKAGES)})/[\w./-]*", text))
        missing = sorted(path for path in paths if not (ROOT / path.rstrip(".")).exists())
        assert missing == [], page


def test_every_module_in_the_map_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    block = re.search(r"^## Map\n+```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    package, missing = "", []
    for line in block[1].splitlines():
        indent, names = len(line) - len(line.lstrip()), re.split(r" {3,}", line.strip())[0].split()
        if indent == 0:
            package = names[0]
            names = names[1:] if len(names) > 1 else []
        missing += [name for name in names if not _exists(ROOT / package / name)]
    assert missing == []


def _exists(path: Path) -> bool:
    return path.exists() or path.with_name(path.name + ".py").exists()


def test_every_class_that_the_architecture_page_names_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    names = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]+)*)(?:\.\w+)?`", text))
    source = "\n".join(path.read_text() for package in PACKAGES[:4] for path in (ROOT / package).rglob("*.py"))
    assert names, "the page names classes"
    assert sorted(name for name in names if not re.search(rf"^class {name}\b", source, re.MULTILINE)) == []


def test_every_link_of_the_readme_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
