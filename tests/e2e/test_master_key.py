"""The master key as an operator gives it, from each source: refused in one line, or changed as the how-to says."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from security.domain.master_keys import generate_master_key
from tests.services import Product

pytestmark = pytest.mark.own_web_server

NONE = {"MCP_MASTER_KEY": ""}
"""With services of its own an installation of the tests has one; what is empty is not set."""
RIGHT, OTHER = generate_master_key(), generate_master_key()
SOURCES: dict[str, Callable[[str, Path], dict[str, str]]] = {
    "variable": lambda text, _path: {"MCP_MASTER_KEY": text.replace("\n", ",")},
    "file": lambda text, path: {"MCP_MASTER_KEY_FILE": write(path, text)},
    "command": lambda text, path: {"MCP_MASTER_KEY_COMMAND": f"cat {write(path, text)}"},
}


def write(path: Path, text: str) -> str:
    path.write_text(f"{text}\n")
    path.chmod(0o600)
    return str(path)


def give(installation: Product, variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the installation with this master key."""
    without = {name: text for name, text in installation.variables.items() if not name.startswith("MCP_MASTER_KEY")}
    return Product(data_dir=installation.data_dir, variables={**without, **NONE, **variables}).manage(*arguments)


def check_refused(done: subprocess.CompletedProcess[str], named: str) -> None:
    """One line that says what is wrong, with nothing of any key."""
    assert done.returncode in (1, 2), done.stdout
    [line] = done.stderr.strip().splitlines()
    assert line.startswith(("error: ", "CommandError: "))
    assert named in line
    assert RIGHT not in line
    assert OTHER not in line


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Product:
    """A prepared installation; nothing of it runs."""
    product = Product(data_dir=tmp_path_factory.mktemp("master") / "var")
    product.variables["MCP_MASTER_KEY"] = RIGHT
    prepared = product.manage("serve", "prepare")
    assert prepared.returncode == 0, prepared.stderr
    return product


@pytest.mark.parametrize("source", SOURCES)
def test_another_master_key_starts_nothing(installation: Product, source: str, tmp_path: Path) -> None:
    variables = SOURCES[source](OTHER, tmp_path / "key")
    check_refused(give(installation, variables, "serve", "prepare"), "not the one that wrapped")


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"MCP_MASTER_KEY": "none"}, "MCP_MASTER_KEY"),
        ({"MCP_MASTER_KEY_FILE": "/nowhere/key"}, "MCP_MASTER_KEY_FILE"),
        ({"MCP_MASTER_KEY_FILE": "/etc"}, "MCP_MASTER_KEY_FILE"),
        ({"MCP_MASTER_KEY_COMMAND": "false"}, "MCP_MASTER_KEY_COMMAND"),
        ({"MCP_MASTER_KEY_COMMAND": "/nowhere/kms"}, "MCP_MASTER_KEY_COMMAND"),
        ({"MCP_MASTER_KEY_COMMAND": "echo none"}, "MCP_MASTER_KEY_COMMAND"),
    ],
)
def test_what_is_no_master_key_starts_nothing(installation: Product, variables: dict[str, str], named: str) -> None:
    check_refused(give(installation, variables, "serve", "prepare"), named)


@pytest.mark.parametrize(
    "arguments", [["rotate_keys"], ["rotate_master_key"], ["export_audit"], ["verify_audit"]], ids=" ".join
)
def test_a_command_that_needs_the_keys_says_so_too(installation: Product, arguments: list[str]) -> None:
    check_refused(give(installation, {"MCP_MASTER_KEY": OTHER}, *arguments), "master key")
    check_refused(give(installation, {"MCP_MASTER_KEY_FILE": "/nowhere/key"}, *arguments), "MCP_MASTER_KEY_FILE")


@pytest.mark.parametrize("source", SOURCES)
def test_it_is_changed_as_the_how_to_says(source: str, tmp_path: Path) -> None:
    old, new = generate_master_key(), generate_master_key()
    installation = Product(data_dir=tmp_path / "var")
    make = SOURCES[source]
    assert give(installation, make(old, tmp_path / "old"), "serve", "prepare").returncode == 0
    both = make(f"{new}\n{old}", tmp_path / "both")
    changed = give(installation, both, "rotate_master_key")
    assert changed.returncode == 0, changed.stderr
    assert give(installation, make(new, tmp_path / "new"), "serve", "prepare").returncode == 0
    check_refused(give(installation, make(old, tmp_path / "old"), "serve", "prepare"), "not the one that wrapped")
    # A node that still has the old one alone makes no key that the others cannot open.
    check_refused(give(installation, make(old, tmp_path / "old"), "rotate_keys"), "not the one that wrapped")
    check_refused(give(installation, make(new, tmp_path / "new"), "rotate_master_key"), "NEW,OLD")
