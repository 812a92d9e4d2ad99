"""The first start: accounts and files, whatever interrupts their making."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.db import connection
from pytest_django import Settings

from protocol.domain.messages import ApiKeyCredentials
from protocol.ports import get_authenticator
from security.models import Account, ApiKey
from security.services import FirstAccounts, ensure_first_accounts
from tests.factories import create_person, ensure_builtin_roles

PROJECT_ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import os, pathlib, signal, sys
import django
django.setup()
from security.services import ensure_first_accounts
folder, event, number = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
seen = 0
def kill(name, arguments):
    global seen
    if name == event and str(folder) in str(arguments[0]):
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(kill)
print(ensure_first_accounts(first_run_dir=folder) is not None)
"""


class Interrupted(Exception):
    """Stands for whatever ends the attempt."""


def get_mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def assert_whole(first: FirstAccounts, folder: Path) -> None:
    """Both accounts are there, and what the files say lets both in."""
    assert (folder / "operator-password").read_text() == f"{first.operator_password}\n"
    assert (folder / "agent-api-key").read_text() == f"{first.agent_api_key}\n"
    assert sorted(path.name for path in folder.iterdir()) == ["agent-api-key", "operator-password"]
    operator = authenticate(username="operator", password=first.operator_password)
    assert operator == Account.objects.get(username="operator")
    principal = get_authenticator().authenticate(
        credentials=ApiKeyCredentials(key=first.agent_api_key), remote_address=None
    )
    assert (principal.name, principal.roles) == ("agent", ("agent",))


@pytest.fixture(autouse=True)
def builtin_roles(request: pytest.FixtureRequest) -> None:
    """The migrations' roles, of which a test with real transactions may have left none."""
    if request.node.get_closest_marker("django_db") is not None:
        request.getfixturevalue("_django_db_helper")
        ensure_builtin_roles()


@pytest.mark.django_db
def test_the_first_start_makes_an_operator_and_an_agent(tmp_path: Path) -> None:
    folder = tmp_path / "var" / "first-run"
    first = ensure_first_accounts(first_run_dir=folder)
    assert first is not None
    assert_whole(first, folder)
    assert len(first.operator_password) >= 24
    assert first.operator_password not in repr(first)
    assert first.agent_api_key not in repr(first)
    assert get_mode(folder) == 0o700
    assert {get_mode(path) for path in folder.iterdir()} == {0o600}
    operator = Account.objects.get(username="operator")
    assert (operator.kind, operator.is_staff, operator.is_superuser) == ("person", True, True)
    assert [role.name for role in operator.roles.all()] == ["operator"]
    agent = Account.objects.get(username="agent")
    assert (agent.kind, agent.is_staff, agent.is_superuser) == ("service", False, False)
    assert ApiKey.objects.get().name == "first run"


@pytest.mark.django_db
def test_a_second_start_changes_nothing(tmp_path: Path) -> None:
    ensure_first_accounts(first_run_dir=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert ensure_first_accounts(first_run_dir=tmp_path) is None
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert Account.objects.count() == 2


@pytest.mark.django_db
def test_any_account_at_all_makes_it_a_later_start(tmp_path: Path) -> None:
    create_person()
    assert ensure_first_accounts(first_run_dir=tmp_path) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.django_db
def test_a_folder_that_others_could_open_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    ensure_first_accounts(first_run_dir=tmp_path)
    assert get_mode(tmp_path) == 0o700


@pytest.mark.django_db
def test_an_attempt_that_ends_at_any_query_leaves_no_account(tmp_path: Path, settings: Settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    first, number_of_failures = None, 0
    while first is None:
        try:
            with connection.execute_wrapper(interrupt_at(number_of_failures + 1)):
                first = ensure_first_accounts(first_run_dir=tmp_path)
        except Interrupted:
            number_of_failures += 1
            assert not Account.objects.exists()
            assert not ApiKey.objects.exists()
    assert number_of_failures >= 5
    assert_whole(first, tmp_path)


def interrupt_at(number: int) -> Callable[..., Any]:
    remaining = number

    def wrapper(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal remaining
        # Ending a savepoint is how Django's test case plays the rollback that is looked at.
        if "SAVEPOINT" in sql:
            return execute(sql, params, many, context)
        remaining -= 1
        if remaining == 0:
            raise Interrupted
        return execute(sql, params, many, context)

    return wrapper


@pytest.mark.django_db
@pytest.mark.parametrize("obstacle", ["operator-password", "agent-api-key"])
def test_files_that_cannot_be_written_leave_no_account(tmp_path: Path, obstacle: str) -> None:
    (tmp_path / obstacle).mkdir()
    with pytest.raises(OSError, match=obstacle):
        ensure_first_accounts(first_run_dir=tmp_path)
    assert not Account.objects.exists()
    (tmp_path / obstacle).rmdir()
    first = ensure_first_accounts(first_run_dir=tmp_path)
    assert first is not None
    assert_whole(first, tmp_path)


@pytest.mark.parametrize(
    ("event", "number", "left"),
    [
        ("open", 1, set()),
        ("os.rename", 1, set()),
        ("os.rename", 2, {"operator-password"}),
        ("open", 4, {"operator-password", "agent-api-key"}),
    ],
    ids=["before-the-first-file", "within-the-first-file", "within-the-second-file", "before-the-commit"],
)
def test_a_kill_leaves_files_that_the_next_start_writes_anew(
    migrated_data_dir: Path, tmp_path: Path, event: str, number: int, left: set[str]
) -> None:
    data_dir, folder = tmp_path / "data", tmp_path / "first-run"
    shutil.copytree(migrated_data_dir, data_dir)
    killed = run_first_start(data_dir, folder, event, number)
    assert killed.returncode == -signal.SIGKILL
    before = {path.name: path.read_text() for path in folder.iterdir() if not path.name.startswith(".")}
    assert set(before) == left
    finished = run_first_start(data_dir, folder, "none", 0)
    assert (finished.returncode, finished.stdout) == (0, "True\n"), finished.stderr
    after = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(after) == {"operator-password", "agent-api-key"}
    assert all(after[name] != text for name, text in before.items())


def run_first_start(data_dir: Path, folder: Path, event: str, number: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), event, str(number)],
        env=make_environment(data_dir),
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def make_environment(data_dir: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "MCP_DATA_DIR": str(data_dir),
        "DJANGO_SETTINGS_MODULE": "mcp_site.settings",
    }


@pytest.fixture(scope="module")
def migrated_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose SQLite database has this app's tables: copy it, then kill a process over the copy."""
    data_dir = tmp_path_factory.mktemp("data")
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "security", "--verbosity=0"],
        env=make_environment(data_dir),
        cwd=PROJECT_ROOT,
        check=True,
        timeout=60,
    )
    return data_dir


@pytest.mark.django_db(transaction=True)
def test_of_two_first_starts_at_once_one_makes_the_accounts(tmp_path: Path) -> None:
    both_looked = threading.Barrier(2, timeout=30)
    results: list[FirstAccounts | None] = []

    def start() -> None:
        has_looked = False

        def wait_for_the_other(execute: Callable[..., Any], *arguments: Any) -> Any:
            nonlocal has_looked
            result = execute(*arguments)
            if not has_looked:
                has_looked = True
                both_looked.wait()
            return result

        try:
            with connection.execute_wrapper(wait_for_the_other):
                results.append(ensure_first_accounts(first_run_dir=tmp_path))
        finally:
            connection.close()

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    made = [first for first in results if first is not None]
    assert (len(results), len(made)) == (2, 1)
    assert_whole(made[0], tmp_path)
