"""`manage.py serve` as a person meets it: starting, what keeps it from starting, restarts, stopping."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from websockets import CloseCode, ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.services import STOP_SECONDS, Product, list_running, run_product, wait_until


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A product that this module may stop and kill; its data folder is past its first start."""
    with run_product(tmp_path_factory.mktemp("own") / "var") as product:
        yield product


PARTS = {
    "web": ("serve web",),
    # Celery changes its processes' titles.
    "worker": ("serve worker", ":MainProcess]"),
    "scheduler": ("serve scheduler", "[celery beat]"),
    "valkey": ("valkey-server",),
}


def find_child(product: Product, part: str) -> psutil.Process | None:
    """The supervisor's child that runs this part, if it runs now."""
    assert product.process is not None
    for child in psutil.Process(product.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            line = " ".join(child.cmdline())
            if any(mark in line for mark in PARTS[part]):
                return child
    return None


def list_all(product: Product) -> list[psutil.Process]:
    """Supervisor, valkey, web, scheduler, worker and its two children, once all are there."""
    wait_until(lambda: len(product.list_processes()) >= 7, what="all processes")
    return product.list_processes()


def read_to_end(client: ClientConnection) -> None:
    """Take what a server that stops still says, until it closes."""
    while True:
        assert "session.draining" in str(client.recv(timeout=STOP_SECONDS))


def is_ready(product: Product) -> bool:
    try:
        return product.get("readyz")[0] == 200
    except OSError:
        return False


@pytest.mark.own_web_server
def test_the_first_start_makes_accounts_and_tells_where_everything_is(product: Product) -> None:
    folder = product.data_dir / "first-run"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    assert product.agent_api_key.startswith("mcp_")
    wait_until(lambda: "Ctrl-C stops it" in product.output, what="the banner")
    for shown in (
        f"{product.url}admin/",
        product.websocket_url,
        "SHA256:",
        str(product.data_dir / "log"),
        product.operator_password,
        product.agent_api_key,
    ):
        assert product.output.count(shown) >= 1, f"{shown} is not in the banner"
    logs = "".join(path.read_text() for path in (product.data_dir / "log").iterdir())
    assert product.operator_password not in logs
    assert product.agent_api_key not in logs


def test_nobody_else_can_read_the_data_folder(product: Product) -> None:
    assert stat.S_IMODE(product.data_dir.stat().st_mode) == 0o700


def test_health_and_readiness_name_each_dependency(product: Product) -> None:
    assert product.get("healthz") == (200, b'{"status":"ok"}')
    status, body = product.get("readyz")
    report = json.loads(body)
    assert (status, report["status"]) == (200, "ok")
    assert set(report["checks"]) == {"database", "broker", "workers"}
    assert all(check["status"] == "ok" and check["latency_ms"] >= 0 for check in report["checks"].values())


@pytest.mark.own_web_server
def test_a_second_start_is_refused_in_one_line(product: Product) -> None:
    assert product.process is not None
    refused = product.manage("serve")
    assert refused.returncode == 1
    assert len(refused.stderr.splitlines()) == 1
    assert f"pid {product.process.pid}, {product.url}" in refused.stderr
    assert is_ready(product)


def test_a_web_process_that_dies_is_started_again_and_no_connection_is_refused(own: Product) -> None:
    port = int(own.url.rstrip("/").rpartition(":")[2])
    web = find_child(own, "web")
    assert web is not None
    web.kill()
    psutil.wait_procs([web], timeout=STOP_SECONDS)
    with socket.create_connection(("127.0.0.1", port), timeout=20) as early:
        early.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert early.recv(12) == b"HTTP/1.1 200"
    assert find_child(own, "web") not in (web, None)
    assert "web.1 was ended by SIGKILL" in own.output


@pytest.mark.parametrize("part", ["worker", "scheduler", "valkey"])
def test_any_other_part_that_dies_is_started_again(own: Product, part: str) -> None:
    before = find_child(own, part)
    assert before is not None
    offspring = before.children(recursive=True)
    before.kill()
    psutil.wait_procs([before], timeout=STOP_SECONDS)
    wait_until(lambda: not list_running(offspring), what="the end of its children")
    wait_until(lambda: find_child(own, part) not in (before, None), what=part)
    wait_until(lambda: is_ready(own), seconds=30, what="readiness")


def test_sigterm_stops_all_and_the_next_start_shows_no_secret(own: Product) -> None:
    processes = list_all(own)
    with connect(own.websocket_url) as client:
        assert own.stop() < STOP_SECONDS
        with pytest.raises(ConnectionClosed) as closed:
            read_to_end(client)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == CloseCode.SERVICE_RESTART
    assert own.process is not None
    assert own.process.returncode == 0
    assert list_running(processes) == []
    assert not (own.data_dir / "run" / "serve.json").exists()

    own.start()
    assert own.output.count("operator's password") == 1, "a secret was shown again"


def test_kill_9_leaves_no_process_and_the_next_start_works(own: Product) -> None:
    processes = list_all(own)
    assert own.process is not None
    own.process.kill()
    own.process.wait(STOP_SECONDS)
    # Started at once, it waits for what the killed one left.
    own.start()
    assert list_running(processes) == []
    assert is_ready(own)


def test_a_second_ctrl_c_does_not_wait(own: Product) -> None:
    processes = list_all(own)
    worker = find_child(own, "worker")
    assert worker is not None
    worker.suspend()
    assert own.process is not None
    # SIGTERM is handled as SIGINT is, which a run of the tests in the background would have ignored.
    stops = own.output.count("stopping")
    own.process.send_signal(signal.SIGTERM)
    # Two signals at once would be one.
    wait_until(lambda: own.output.count("stopping") > stops, what="the stop")
    own.process.send_signal(signal.SIGTERM)
    own.process.wait(STOP_SECONDS)
    # Killed, and perhaps just ending.
    wait_until(lambda: list_running(processes) == [], what="the end of what was killed")
    own.start()


def refuse(tmp_path: Path, *arguments: str, **variables: str) -> str:
    """The one line with which a start with these variables is refused."""
    product = Product(data_dir=tmp_path / "var", variables=variables)
    refused = product.manage(*(arguments or ("serve",)))
    assert refused.returncode != 0
    lines = refused.stderr.splitlines()
    assert len(lines) == 1, refused.stderr
    assert not (product.data_dir / "run" / "serve.json").exists()
    return lines[0]


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refuse(tmp_path, MCP_PORT=str(port))
    assert str(port) in line
    assert "MCP_PORT" in line
    assert not (tmp_path / "var" / "db.sqlite3").exists(), "something was started"


def test_an_unusable_data_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "MCP_DATA_DIR" in refuse(tmp_path, MCP_DATA_DIR=str(tmp_path / "file"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_data_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir(mode=0o500)
    assert "MCP_DATA_DIR" in refuse(tmp_path)


def test_plaintext_beyond_loopback_is_refused_with_what_to_set(tmp_path: Path) -> None:
    line = refuse(tmp_path, MCP_BIND="0.0.0.0")  # noqa: S104  # refused
    for name in ("MCP_TLS_CERT", "MCP_TLS_KEY", "MCP_TRUSTED_PROXIES", "MCP_ALLOW_INSECURE_TRANSPORT"):
        assert name in line


def test_a_bad_certificate_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("nonsense")
    (tmp_path / "key.pem").write_text("nonsense")
    line = refuse(tmp_path, MCP_TLS_CERT=str(tmp_path / "cert.pem"), MCP_TLS_KEY=str(tmp_path / "key.pem"))
    assert "MCP_TLS_CERT" in line


def test_a_bad_value_is_one_line(tmp_path: Path) -> None:
    assert "MCP_WEB_WORKERS" in refuse(tmp_path, MCP_WEB_WORKERS="none")


@pytest.mark.parametrize("arguments", [("serve", "web"), ("serve", "worker"), ("serve", "scheduler"), ("runserver",)])
def test_a_part_alone_without_a_broker_says_what_to_start(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert "serve" in refuse(tmp_path, *arguments)
