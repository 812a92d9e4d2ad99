"""The page that says what a crash costs has a row for each point at which the tests crash something, and no other."""

from __future__ import annotations

import re

from protocol.failpoints import NAMES
from tests.docs.pages import DOCS


def test_every_failpoint_has_its_row() -> None:
    text = (DOCS / "explanation" / "executions.md").read_text()
    rows = re.findall(r"^\| `([a-z]+\.[a-z_]+)` \|(.+)\|$", text, re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(NAMES)
    # Who dies, what is left, what brings it on, what the caller is told.
    assert all(len([cell for cell in cells.split("|") if cell.strip()]) == 4 for _, cells in rows)
