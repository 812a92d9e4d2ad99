"""What the threat model names as proof is there."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import DOCS, PROJECT_ROOT

TEXT = (DOCS / "explanation" / "threat-model.md").read_text()
NAMED = sorted(set(re.findall(r"`(test_[a-z0-9_]+)`", TEXT)))


@pytest.fixture(scope="module")
def tests_there_are() -> set[str]:
    return {
        name
        for path in (PROJECT_ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_[a-z0-9_]+)", path.read_text())
    }


@pytest.mark.parametrize("name", NAMED)
def test_the_proof_of_a_defence_is_a_test(name: str, tests_there_are: set[str]) -> None:
    assert name in tests_there_are


def test_every_attack_has_one() -> None:
    rows = [line for line in TEXT.partition("## Attacks")[2].splitlines() if line.startswith("| ")]
    attacks = [row for row in rows if not row.startswith(("| ---", "| attack |"))]
    assert len(attacks) > 20
    assert [row for row in attacks if "`test_" not in row] == []
