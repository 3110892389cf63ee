"""Rules on names and language of the four packages."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("config", "consumers", "storage", "monitor")
_CLAUSES = re.compile(r"\b(?:what|whatever|who|whoever|whom)\b", re.IGNORECASE)
_WORDS_PER_CLAUSE = 1_000


def _modules() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text())


def test_one_public_class_name_is_defined_in_one_module() -> None:
    modules = defaultdict(list)
    for path, tree in _modules():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules[node.name].append(str(path))
    assert len(modules) > 100
    assert {name: paths for name, paths in modules.items() if len(paths) > 1} == {}


def _docstrings() -> Iterator[tuple[Path, str]]:
    for path, tree in _modules():
        for node in ast.walk(tree):
            for child in getattr(node, "body", []) if not isinstance(node, ast.Lambda | ast.IfExp) else []:
                if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                    yield path, str(child.value.value)


@pytest.mark.slow
def test_docstrings_name_things_instead_of_paraphrasing_them() -> None:
    words, clauses = 0, []
    for path, text in _docstrings():
        words += len(text.split())
        clauses += [f"{path}: {match[0]}" for match in _CLAUSES.finditer(text)]
    assert words > 10_000
    assert len(clauses) * _WORDS_PER_CLAUSE < words, clauses


@pytest.mark.slow
def test_no_docstring_starts_with_the_name_of_its_package() -> None:
    prefixed = re.compile(r"^(?:Storage room|Storage|Detectors?|Consumers?|Config(?:uration)?|Monitor|Tests?): ")
    texts = ((path, ast.get_docstring(tree) or "") for path, tree in _modules())
    found = [f"{path}: {text[:60]}" for path, text in texts if prefixed.match(text)]
    assert found == []
