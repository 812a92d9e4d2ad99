"""Two web servers over one database: whatever takes rights away is known to both within a second."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.client import Client, open_session
from tests.services import PROJECT_ROOT, STOP_SECONDS, Product, run_valkey, wait_until

pytestmark = pytest.mark.own_web_server

REACHES_SECONDS = 3.0
"""A second is promised; a busy machine may take its time to tell of it."""
REVOKED = 4403

_BEGIN = """
import json, time
from protocol.models import Session
from security import services
from security.models import Account, AddressRule, Grant, Role
from security.selectors import get_account_principal
account, _ = Account.objects.get_or_create(username="two", kind="service", defaults={"password": "!"})
"""

ACTS = {
    "role": "account.roles.clear()",
    "grant": "Grant.objects.filter(role__name='two').delete()",
    "key": "services.revoke_api_key(api_key=account.api_keys.get(revoked_at=None))",
    "account": "account.is_active = False; services.save_account(account=account)",
    "session": "services.end_sign_ins(account_id=account.id, principal=None, trace_id='')",
    "address rule": "AddressRule.objects.create(effect='deny', network='127.0.0.1', account=account)",
}


def find_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Product, tuple[int, int]]]:
    """An installation with two web servers, and their ports."""
    folder = tmp_path_factory.mktemp("nodes")
    broker = folder / "broker.sock"
    ports = (find_port(), find_port())
    installation = Product(
        data_dir=folder / "var",
        variables={
            "REDIS_URL": f"unix://{broker}",
            "MCP_SECRET_KEY": secrets.token_urlsafe(64),
            "MCP_IDENTITY_KEY": secrets.token_urlsafe(32),
            "MCP_MASTER_KEY": secrets.token_urlsafe(32),
        },
    )
    with run_valkey(socket=broker, data_dir=folder):
        prepared = installation.manage("serve", "prepare")
        assert prepared.returncode == 0, prepared.stderr
        parts = [start(installation, port, folder) for port in ports]
        try:
            for port in ports:
                wait_until(lambda port=port: is_listening(port), seconds=60, what="a web server")  # type: ignore[misc]  # a lambda's default
            yield installation, ports
        finally:
            for part in parts:
                part.terminate()
            for part in parts:
                part.wait(STOP_SECONDS)


def start(installation: Product, port: int, folder: Path) -> subprocess.Popen[bytes]:
    environment = replace(installation, variables={**installation.variables, "MCP_PORT": str(port)}).environment
    with (folder / f"{port}.out").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "manage.py", "serve", "web"],
            cwd=PROJECT_ROOT,
            env=environment,
            stdout=output,
            stderr=output,
        )


def run(installation: Product, script: str) -> dict[str, Any]:
    done = installation.manage("shell", "--no-imports", "-c", _BEGIN + script)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def make_key(installation: Product) -> str:
    told = run(
        installation,
        """
account.is_active = True
account.save()
AddressRule.objects.all().delete()
role, _ = Role.objects.get_or_create(name="two")
Grant.objects.get_or_create(role=role, effect="allow", action_pattern="tools.view", resource_pattern="tool:*")
account.roles.set([role])
account.api_keys.update(revoked_at="2026-01-01T00:00:00Z")
print(json.dumps({"key": services.issue_api_key(account=account, name="test").secret}))
""",
    )
    return str(told["key"])


async def wait_until_it_may_not(client: Client) -> float:
    """When a call was first denied; the connection stays."""
    while True:
        answer = await client.call("tools.list", {"limit": 1})
        if answer.terminal.type == "error":
            assert answer.code == "security.access_denied"
            return time.time()


async def wait_until_closed(client: Client) -> float:
    assert await client.wait_closed(seconds=60) == REVOKED
    return time.time()


@pytest.mark.parametrize("what", ACTS)
async def test_both_know_within_a_second(nodes: tuple[Product, tuple[int, int]], what: str) -> None:
    installation, ports = nodes
    key = await asyncio.to_thread(make_key, installation)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(open_session(f"ws://127.0.0.1:{port}/ws/", key)) for port in ports]
        for client in clients:
            assert (await client.call("tools.list", {"limit": 1})).terminal.type == "response"
        wait = wait_until_it_may_not if what in ("role", "grant") else wait_until_closed
        waiting = [asyncio.create_task(wait(client)) for client in clients]
        act = f"{ACTS[what]}\nprint(json.dumps({{'at': time.time()}}))"
        done = await asyncio.to_thread(run, installation, act)
        for known_at in await asyncio.gather(*waiting):
            assert known_at - done["at"] < REACHES_SECONDS
