"""What the tests over a real socket share: accounts with and without rights, and a product with short deadlines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.services import Product, run_product

HEARTBEAT_SECONDS = 0.5
DEADLINE_SECONDS = 0.5


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups by the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of the impatient product on one process, so that it is started once."""
    for item in items:
        if "impatient" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("impatient"))


_MAKE_KEYS = """
import json
from security import services
from security.models import Account

def issue(name, roles, scopes=()):
    account = services.create_account(username=name, kind=Account.Kind.SERVICE, roles=roles)
    return services.issue_api_key(account=account, name="test", scopes=scopes, expires_at=None).secret

print(json.dumps({
    "agent": issue("tests-agent", ["agent"]),
    "other": issue("tests-other", ["agent"]),
    "viewer": issue("tests-viewer", ["viewer"]),
    "nobody": issue("tests-nobody", []),
    "reader": issue("tests-reader", ["agent"], scopes=["tools.view"]),
}))
"""


@dataclass(frozen=True, kw_only=True)
class Keys:
    """API keys of accounts that only tests use."""

    agent: str
    other: str
    """Of another agent."""
    viewer: str
    """Of an account that sees everything and runs nothing."""
    nobody: str
    """Of an account without any role."""
    reader: str
    """Of an agent, narrowed to seeing tools."""


def make_keys(product: Product) -> Keys:
    made = product.manage("shell", "--no-imports", "-c", _MAKE_KEYS)
    assert made.returncode == 0, made.stderr
    return Keys(**json.loads(made.stdout.splitlines()[-1]))


@pytest.fixture(scope="session")
def keys(product: Product) -> Keys:
    """Keys for the shared product."""
    return make_keys(product)


@pytest.fixture(scope="session")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A product with short deadlines and a workspace of its own, which its tests may stop and kill parts of."""
    folder = tmp_path_factory.mktemp("impatient")
    workspace = folder / "workspace"
    workspace.mkdir()
    for number in range(60):
        (workspace / f"{number}.txt").write_text(f"line one\nneedle {number}\n")
    with run_product(
        folder / "var",
        MCP_APPS="tests.sample_tools",
        MCP_WORKSPACE=str(workspace),
        MCP_HANDSHAKE_TIMEOUT_SECONDS=str(DEADLINE_SECONDS),
        MCP_AUTHENTICATION_TIMEOUT_SECONDS=str(DEADLINE_SECONDS),
        MCP_HEARTBEAT_INTERVAL_SECONDS=str(HEARTBEAT_SECONDS),
    ) as product:
        yield product


def find_process(product: Product, *marks: str) -> psutil.Process:
    """The supervisor's child whose command line has one of the marks."""
    assert product.process is not None
    for child in psutil.Process(product.process.pid).children():
        line = " ".join(child.cmdline())
        if any(mark in line for mark in marks):
            return child
    raise AssertionError(f"there is no process {marks}")


def find_web(product: Product) -> psutil.Process:
    return find_process(product, "serve web")


def find_worker(product: Product) -> psutil.Process:
    """The worker's parent process; Celery changes its title."""
    return find_process(product, "serve worker", ":MainProcess]")


def find_valkey(product: Product) -> psutil.Process:
    return find_process(product, "valkey-server")


def read_log(product: Product, name: str) -> str:
    """What a process has written so far; the file is made with the first line."""
    path = Path(product.data_dir, "log", f"{name}.log")
    return path.read_text(errors="replace") if path.exists() else ""
