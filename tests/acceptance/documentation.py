"""The documentation as its tests read it: code blocks by language, and commands with their output."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = "README.md"
QUICK_START = "docs/quick-start.md"
GUIDES = tuple(dict.fromkeys((QUICK_START, *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md")))))
PAGES: dict[str, str] = {page: (ROOT / page).read_text() for page in (README, *GUIDES)}
"""Text of README and of the pages in docs, by path. The quick start is first, so that its commands run first."""

_BLOCK = re.compile(r"^```([\w{}-]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"[-+]?\d[\d.,:+/-]*(?:[TZe][\d:.+-]*)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleCommand:
    """A command and the output lines that a page shows; `...` represents omitted lines or the omitted end of a line."""

    line: str
    printed: tuple[str, ...]


def code_blocks(language: str, *pages: str) -> list[str]:
    """Return the code blocks of a language, on the given pages or on all of them."""
    found = [text for page in pages or PAGES for name, text in _BLOCK.findall(PAGES[page]) if name == language]
    assert found, f"no block of {language} on {pages or 'any page'}"
    return found


def block_languages() -> set[str]:
    """Return the languages of all blocks of all pages; a block without a language has the empty name.

    Sphinx directives, such as `{toctree}`, are not code.
    """
    return {name for text in PAGES.values() for name, _ in _BLOCK.findall(text) if not name.startswith("{")}


def console_commands(*pages: str) -> Iterator[ConsoleCommand]:
    """Yield the commands of the console blocks of pages, in order."""
    for block in (text for page in pages for name, text in _BLOCK.findall(PAGES[page]) if name == "console"):
        parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
        assert not parts[0], f"a console block starts with a command, not with {parts[0]!r}"
        for part in parts[1:]:
            line, *printed = part.splitlines()
            yield ConsoleCommand(line=line, printed=tuple(each for each in printed if each.strip() not in ("", "...")))


def normalise_line(text: str) -> str:
    """Return a line with numbers and times replaced by `#` and runs of whitespace by a space."""
    return " ".join(_NUMBER.sub("#", text).split())


def contains_line(line: str, screen: str) -> bool:
    """Return whether the screen shows a documented line, apart from numbers and line breaks."""
    return normalise_line(line.removesuffix(" ...")) in normalise_line(screen)
