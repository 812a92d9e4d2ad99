"""`MCP_APPS`: an installation's own apps are found by name, and a wrong name is one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mcp_site.errors import BadEnvironment
from mcp_site.settings.own_apps import find_apps

PROJECT_ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on Python's path with one package, one without ``__init__.py``, and one single module."""
    (tmp_path / "with_init").mkdir()
    (tmp_path / "with_init" / "__init__.py").touch()
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "mcp_tools.py").touch()
    (tmp_path / "single.py").touch()
    (tmp_path / "not-a-name").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_packages_are_taken_in_their_order() -> None:
    assert find_apps(["with_init", "bare"], installed=["tools"]) == ["with_init", "bare"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "names", [["tools"], ["bare", "bare"], ["nowhere"], ["nowhere.tools"], ["single"], ["not-a-name"], ["..bare"]]
)
def test_a_name_that_cannot_be_an_app_is_named(names: list[str]) -> None:
    with pytest.raises(BadEnvironment, match="MCP_APPS: .*" + names[-1].strip(".")):
        find_apps(names, installed=["tools"])


def test_the_settings_install_them(folder: Path, tmp_path: Path) -> None:
    def list_apps(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from mcp_site import settings; print(settings.INSTALLED_APPS[-1])"],
            cwd=PROJECT_ROOT,
            env={"PYTHONPATH": str(folder), "MCP_APPS": name, "MCP_DATA_DIR": str(tmp_path / "var")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert list_apps("bare").stdout.strip() == "bare"
    refused = list_apps("nowhere")
    assert refused.returncode != 0
    assert "MCP_APPS" in refused.stderr.splitlines()[-1]
