"""Each part of `serve` on its own, as on several machines: over a broker that the environment names."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_site.settings.secrets import generate_secret_key
from security.domain.master_keys import generate_master_key
from tests.services import PROJECT_ROOT, STOP_SECONDS, Product, run_valkey, wait_until


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Product]:
    """An installation over a Valkey that is not its own; nothing of it runs."""
    broker = tmp_path / "broker.sock"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {
        "REDIS_URL": f"unix://{broker}",
        "MCP_SECRET_KEY": generate_secret_key(),
        "MCP_MASTER_KEY": generate_master_key(),
        "MCP_PORT": str(port),
    }
    with run_valkey(socket=broker, data_dir=tmp_path):
        yield Product(data_dir=tmp_path / "var", variables=variables)


def ask_readiness(port: str) -> bytes:
    """The status line of ``/readyz``; empty while nobody listens."""
    try:
        with socket.create_connection(("127.0.0.1", int(port)), timeout=10) as connection:
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return connection.recv(1024).partition(b"\r\n")[0]
    except OSError:
        return b""


def test_the_parts_together_are_ready_and_each_ends_when_asked(installation: Product) -> None:
    prepared = installation.manage("serve", "prepare")
    assert prepared.returncode == 0, prepared.stderr
    assert installation.agent_api_key.startswith("mcp_")
    output = installation.data_dir.parent / "parts.out"
    with output.open("wb") as file:
        parts = [
            subprocess.Popen(
                [sys.executable, "manage.py", "serve", part],
                cwd=PROJECT_ROOT,
                env=installation.environment,
                stdout=file,
                stderr=file,
            )
            for part in ("web", "worker", "scheduler")
        ]
    try:
        port = installation.variables["MCP_PORT"]
        wait_until(lambda: b"200" in ask_readiness(port), seconds=30, what="readiness")
        wait_until(lambda: "scheduling" in output.read_text(), seconds=30, what="the scheduler")
        assert [part.poll() for part in parts] == [None, None, None], output.read_text()
        for part in parts:
            part.send_signal(signal.SIGTERM)
        assert [part.wait(STOP_SECONDS) for part in parts] == [0, 0, 0], output.read_text()
        assert not (installation.data_dir / "valkey").exists(), "an embedded broker was made"
    finally:
        for part in parts:
            part.kill()
            part.wait(STOP_SECONDS)
