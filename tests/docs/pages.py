"""Reading the documentation: which pages there are, what links and code they hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[2]
DOCS = PROJECT_ROOT / "docs"

_FENCE = re.compile(r"^([ ]*)```(?P<language>\w*)(?P<note>[^\n]*)\n(?P<text>.*?)^[ ]*```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_SPAN = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of code."""

    page: Path
    line: int
    language: str
    note: str
    """What follows the language: ``json client``."""
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(PROJECT_ROOT)}:{self.line}"


def list_pages() -> list[Path]:
    """Every page that people read."""
    return [PROJECT_ROOT / "README.md", PROJECT_ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]


def list_blocks(page: Path) -> list[Block]:
    """The page's code, in order."""
    text = page.read_text()
    return [
        Block(
            page=page,
            line=text.count("\n", 0, found.start()) + 1,
            language=found["language"],
            note=found["note"].strip(),
            text=re.sub(rf"^{found[1]}", "", found["text"], flags=re.MULTILINE),
        )
        for found in _FENCE.finditer(text)
    ]


def read_prose(page: Path) -> str:
    """The page without its code blocks."""
    return _FENCE.sub("", page.read_text())


def list_links(page: Path) -> list[str]:
    """Where the page's links and pictures lead."""
    return [found["target"] for found in _LINK.finditer(_SPAN.sub("", read_prose(page)))]


def list_anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the page's headings."""
    headings = re.findall(r"^#+ (.+)$", read_prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def iterate_code(page: Path) -> Iterator[str]:
    """Everything that the page sets as code: spans, and the lines of its shell blocks' commands."""
    yield from _SPAN.findall(read_prose(page))
    for block in list_blocks(page):
        if block.language in ("console", "sh"):
            yield from (line.removeprefix("$ ") for line in block.text.splitlines() if line.startswith("$ "))


def find_console(page: Path, command: str) -> list[str]:
    """What the page shows as the command's output."""
    for block in list_blocks(page):
        if block.language != "console":
            continue
        lines = block.text.splitlines()
        if f"$ {command}" in lines:
            shown = lines[lines.index(f"$ {command}") + 1 :]
            end = next((number for number, line in enumerate(shown) if line.startswith("$ ")), len(shown))
            return shown[:end]
    raise AssertionError(f"{page.name} does not show {command!r}")
