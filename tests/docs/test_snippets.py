"""The docs' Python, installed as a reader would install it: tools, a command and an error code really register."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PROJECT_ROOT, Block, list_blocks, list_pages

REPORT = """
import json, django
django.setup()
from protocol.errors import get_error_table
from protocol.registry import get_commands
from tools.adapters.python import get_pack_failures
from tools.authoring import get_declared_tools
from tools.services import load_tools
load_tools()
print(json.dumps({
    "failures": [failure.error for failure in get_pack_failures()],
    "tools": sorted(get_declared_tools()), "commands": sorted(get_commands()), "codes": sorted(get_error_table()),
}))
"""


def find_block(*, page: str, having: str) -> Block:
    (block,) = (block for block in list_blocks(DOCS / page) if block.language == "python" and having in block.text)
    return block


def install(folder: Path, apps: dict[str, dict[str, str]]) -> dict[str, list[str]]:
    """What is registered once these apps, each with its modules, are installed."""
    for app, modules in apps.items():
        (folder / app).mkdir()
        for module, text in modules.items():
            (folder / app / f"{module}.py").write_text(text)
    reported = subprocess.run(
        [sys.executable, "-c", REPORT],
        cwd=PROJECT_ROOT,
        env={
            "DJANGO_SETTINGS_MODULE": "mcp_site.settings",
            "MCP_APPS": ",".join(apps),
            "MCP_DATA_DIR": str(folder / "var"),
            "PYTHONPATH": str(folder),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert reported.returncode == 0, reported.stderr
    report: dict[str, list[str]] = json.loads(reported.stdout)
    return report


def test_every_tool_that_is_shown_registers(tmp_path: Path) -> None:
    blocks = [
        block
        for page in list_pages()
        for block in list_blocks(page)
        if block.language == "python" and "\n@tool" in block.text
    ]
    assert len({block.page for block in blocks}) >= 4
    apps = {f"app_{number}": {"mcp_tools": block.text} for number, block in enumerate(blocks)}
    report = install(tmp_path, apps)
    assert report["failures"] == []
    for app, block in zip(apps, blocks, strict=True):
        named = f"{app}." in " ".join(report["tools"]) or "text.reverse@1.2.0" in report["tools"]
        assert named, block.place


def test_the_readmes_tool_is_five_lines() -> None:
    (block,) = (block for block in list_blocks(PROJECT_ROOT / "README.md") if block.language == "python")
    assert len([line for line in block.text.splitlines() if line.strip()]) == 5


def test_the_command_and_the_error_code_register(tmp_path: Path) -> None:
    command = find_block(page="how-to/add-a-command.md", having="@command")
    # The app's module of the project is imported by others; a reader's own app imports its errors itself.
    error = find_block(page="how-to/add-an-error-code.md", having="class ToolOnHoliday")
    commands = f"import my_app.errors\n{command.text}"
    report = install(tmp_path, {"my_app": {"commands": commands, "errors": error.text}})
    assert "greetings.greet" in report["commands"]
    assert "tool.on_holiday" in report["codes"]


def test_the_middleware_and_the_settings_module_are_taken(tmp_path: Path) -> None:
    page = "how-to/add-a-setting.md"
    (tmp_path / "my_site").mkdir()
    (tmp_path / "my_site" / "middleware.py").write_text(find_block(page=page, having="def log_commands").text)
    (tmp_path / "my_settings.py").write_text(find_block(page=page, having="MESSAGE_MIDDLEWARE").text)
    script = "import django; django.setup(); from protocol.middleware import get_middleware; print(get_middleware())"
    printed = subprocess.run(
        [sys.executable, "-c", script],
        cwd=PROJECT_ROOT,
        env={
            "DJANGO_SETTINGS_MODULE": "my_settings",
            "MCP_DATA_DIR": str(tmp_path / "var"),
            "PYTHONPATH": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "log_commands" in printed.stdout, printed.stderr


@pytest.mark.parametrize("page", ["how-to/add-a-tool.md", "how-to/add-a-command.md", "how-to/add-a-setting.md"])
def test_the_one_place_is_a_file_that_is_there(page: str) -> None:
    text = (DOCS / page).read_text()
    assert "**The one place:**" in text
    places = {"mcp_tools.py": "tools", "commands.py": "protocol", "mcp_site/settings/environment.py": "."}
    assert any(place in text and (PROJECT_ROOT / app / place).is_file() for place, app in places.items())
