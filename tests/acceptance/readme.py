"""Acceptance: the README as its tests read it: its blocks by language, and commands with what they print."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"[-+]?\d[\d.,:+/-]*(?:[TZe][\d:.+-]*)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleCommand:
    """A command and the lines that the README says it prints; `...` stands for lines, or the end of one, left out."""

    line: str
    printed: tuple[str, ...]


def code_blocks(language: str) -> list[str]:
    """Return the README's code blocks of a language."""
    found = [text for name, text in _BLOCK.findall(README) if name == language]
    assert found, f"the README has no block of {language}"
    return found


def block_languages() -> set[str]:
    """Return the languages of all blocks; a block without one has the empty name."""
    return {name for name, _ in _BLOCK.findall(README)}


def console_commands() -> Iterator[ConsoleCommand]:
    """Yield the commands of all consoles, in the order of the README."""
    for block in code_blocks("console"):
        parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
        assert not parts[0], f"a console begins with a command, not with {parts[0]!r}"
        for part in parts[1:]:
            line, *printed = part.splitlines()
            yield ConsoleCommand(line=line, printed=tuple(each for each in printed if each.strip() not in ("", "...")))


def normalise_line(text: str) -> str:
    """Return a line as it is whatever its numbers, times and spaces are."""
    return " ".join(_NUMBER.sub("#", text).split())


def contains_line(line: str, screen: str) -> bool:
    """Return whether a line of the README was printed: numbers aside, and wherever the terminal breaks lines."""
    return normalise_line(line.removesuffix(" ...")) in normalise_line(screen)
