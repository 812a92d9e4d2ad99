"""The reference has everything that the code has: what is made from code is fresh, the rest is complete."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_site.settings.reading import CLIENT_VARIABLES, list_variables
from tests.docs.pages import DOCS, PROJECT_ROOT, list_anchors, list_pages

REFERENCE = DOCS / "reference"

TABLES = """
import json, django
django.setup()
from protocol.errors import get_error_table
from protocol.registry import get_commands
from tools.services import load_tools
from tools.authoring import get_declared_tools
load_tools()
print(json.dumps({"codes": sorted(get_error_table()), "commands": sorted(get_commands()),
    "tools": sorted({tool.name for tool in get_declared_tools().values()})}))
"""


def run_clean(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: tests declare tools and errors too."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=PROJECT_ROOT,
        env={"DJANGO_SETTINGS_MODULE": "mcp_site.settings", "MCP_DATA_DIR": str(tmp_path / "var")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_is_made_from_code_is_fresh(tmp_path: Path) -> None:
    checked = run_clean(tmp_path, "manage.py", "make_reference", "--check")
    assert checked.returncode == 0, checked.stderr


def test_a_stale_page_is_found_and_written(tmp_path: Path) -> None:
    folder = tmp_path / "reference"
    folder.mkdir()
    for path in REFERENCE.glob("*.md"):
        (folder / path.name).write_text(path.read_text())
    (folder / "errors.md").write_text("old")
    stale = run_clean(tmp_path, "manage.py", "make_reference", "--check", "--folder", str(folder))
    assert stale.returncode != 0
    assert "errors.md" in stale.stderr
    assert run_clean(tmp_path, "manage.py", "make_reference", "--folder", str(folder)).returncode == 0
    assert (folder / "errors.md").read_text() == (REFERENCE / "errors.md").read_text()


def test_every_code_command_and_tool_is_there(tmp_path: Path) -> None:
    printed = run_clean(tmp_path, "-c", TABLES)
    assert printed.returncode == 0, printed.stderr
    tables: dict[str, list[str]] = json.loads(printed.stdout)
    assert all(tables.values())
    for code in tables["codes"]:
        assert f"`{code}`" in (REFERENCE / "errors.md").read_text(), code
    for name in tables["commands"]:
        assert f"`{name}`" in (REFERENCE / "commands.md").read_text(), name
        assert f"\n### {name}\n" in (REFERENCE / "protocol.md").read_text(), name
    for name in tables["tools"]:
        assert name.replace(".", "") in list_anchors(REFERENCE / "tools.md"), name


def test_every_variable_of_the_environment_is_there() -> None:
    text = (REFERENCE / "settings.md").read_text()
    for name in [*CLIENT_VARIABLES, *(variable.name for variable in list_variables())]:
        assert f"`{name}`" in text, name


@pytest.mark.parametrize("page", list_pages(), ids=lambda page: str(page.relative_to(PROJECT_ROOT)))
def test_no_page_names_a_variable_that_is_none(page: Path) -> None:
    known = {variable.name for variable in list_variables()} | CLIENT_VARIABLES
    examples = {"MCP_MAX_COLOURS", "MCP_PROT"}
    assert set(re.findall(r"\bMCP_[A-Z_]+\b", page.read_text())) <= known | examples
