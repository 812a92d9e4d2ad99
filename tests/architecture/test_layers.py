"""The layers hold, every package is under a contract, and the contracts catch what they are there to catch."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT_ROOT = Path(__file__).resolve().parents[2]
MAX_MODULE_LINES = 400
BANNED_NAMES = {"utils", "helpers", "common", "misc", "manager"}
NOT_APPS = {"tests", "benchmarks", "examples", "docs", "templates", "var"}

CONTRACTS = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
APPS: list[str] = CONTRACTS["root_packages"]


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--config", str(root / "pyproject.toml")],
        cwd=root,
        env={"PYTHONPATH": str(root), "PATH": str(Path(sys.executable).parent), "NO_COLOR": "1", "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The apps and their contracts, to plant violations in."""
    for app in APPS:
        shutil.copytree(PROJECT_ROOT / app, tmp_path / app, ignore=shutil.ignore_patterns("__pycache__", "static"))
    shutil.copy(PROJECT_ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_top_level_package_is_under_the_contracts() -> None:
    packages = {
        entry.name
        for entry in PROJECT_ROOT.iterdir()
        if entry.is_dir() and not entry.name.startswith(".") and any(entry.glob("*.py"))
    } - NOT_APPS
    assert packages == set(APPS)
    apps_contract = next(contract for contract in CONTRACTS["contracts"] if contract["id"] == "apps")
    assert packages <= {layer.strip("()") for layer in apps_contract["layers"]}


def test_every_app_has_a_contract_for_its_files() -> None:
    contained = {name for contract in CONTRACTS["contracts"] for name in contract.get("containers", [])}
    exhaustive = [contract for contract in CONTRACTS["contracts"] if "containers" in contract]
    assert contained | {"mcp_site"} == set(APPS)
    assert all(contract["exhaustive"] for contract in exhaustive)


def test_contracts_hold_as_they_are(copy: Path) -> None:
    result = lint_imports(copy)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("path", "line", "contract"),
    [
        ("protocol/dispatch.py", "import tools.selectors", "Apps"),
        ("security/selectors.py", "import tools.models", "Apps"),
        ("security/models.py", "import security.services", "The files of an app"),
        ("tools/selectors/catalog.py", "import tools.services", "The files of tools"),
        ("tools/adapters/python.py", "import tools.services", "The files of tools"),
        ("tools/commands.py", "import tools.tasks", "The files of tools"),
        ("protocol/registry.py", "import protocol.link", "The files of the message kernel"),
        ("protocol/domain/states.py", "import django.conf", "domain/ knows no Django"),
        ("tools/builtin/text.py", "import tools.selectors", "Tool packs"),
        ("tools/builtin/text.py", "import django.conf", "Tool packs"),
        ("security/utils.py", "", "The files of an app"),
        ("protocol/extras.py", "", "The files of the message kernel"),
        ("tools/leftovers.py", "", "The files of tools"),
    ],
)
def test_planted_violation_is_caught(copy: Path, path: str, line: str, contract: str) -> None:
    planted = copy / path
    planted.touch()
    planted.write_text(f"{planted.read_text()}\n{line}\n")
    result = lint_imports(copy)
    assert result.returncode != 0
    broken = [row for row in result.stdout.splitlines() if row.endswith("BROKEN")]
    assert any(row.startswith(contract) for row in broken), result.stdout


def iterate_modules() -> list[Path]:
    return [
        path
        for folder in [*APPS, "tests", "benchmarks", "examples"]
        for path in (PROJECT_ROOT / folder).rglob("*.py")
        if "migrations" not in path.parts
    ]


def test_no_module_is_too_long_or_named_for_nothing() -> None:
    for path in iterate_modules():
        assert path.stem not in BANNED_NAMES, path
        if "tests" not in path.parts:
            assert len(path.read_text().splitlines()) <= MAX_MODULE_LINES, path


def test_every_module_says_what_belongs_in_it() -> None:
    for path in iterate_modules():
        text = path.read_text().strip()
        assert not text or text.startswith(('"""', "#!")), path
