"""Real services for tests: an embedded Valkey, and the product itself as `manage.py serve` starts it.

Each lies in a folder of its own under the system's temporary one and takes any free port, so that any number of test
runs live beside each other. What is started here is ended here, also when a test fails.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg
from psycopg import sql

from mcp_site.serving.valkey import make_broker_plan

PROJECT_ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 90.0
IS_DAPHNE = os.environ.get("TEST_WEB") == "daphne"
STOP_SECONDS = 10.0


def wait_until(condition: Callable[[], object], *, seconds: float = 20.0, what: str = "the condition") -> None:
    """Return once the condition holds; fail after so many seconds."""
    give_up_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= give_up_at:
            raise AssertionError(f"{what} did not come within {seconds:g} s")
        time.sleep(0.02)


def make_database(name: str) -> dict[str, str]:
    """The variables of a product with its own database on the run's PostgreSQL; none where the run is on SQLite."""
    if "DATABASE_URL" not in os.environ:
        return {}
    url = urlsplit(os.environ["DATABASE_URL"])
    database = f"product_{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
    secrets = {name: os.environ[name] for name in ("MCP_SECRET_KEY", "MCP_MASTER_KEY")}
    return {"DATABASE_URL": url._replace(path=f"/{database}").geturl(), **secrets}


@dataclass(kw_only=True)
class Product:
    """One installation: its folder, and how to start, ask and stop it."""

    data_dir: Path
    variables: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    front: str | None = None
    """Where another web server of this installation answers, which is then the one that is asked."""

    def __post_init__(self) -> None:
        self.variables = {**make_database(str(self.data_dir)), **self.variables}

    @property
    def environment(self) -> dict[str, str]:
        """What its commands are started with: nothing of the tests' own environment but the path."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.data_dir.parent),
            "MCP_DATA_DIR": str(self.data_dir),
            "MCP_PORT": "0",
            "MCP_WORKSPACE": str(PROJECT_ROOT / "docs"),
            **self.variables,
        }

    @property
    def output_path(self) -> Path:
        return self.data_dir.with_suffix(".out")

    @property
    def output(self) -> str:
        """What all starts of it have printed so far."""
        return self.output_path.read_text(errors="replace") if self.output_path.exists() else ""

    @property
    def run_file(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.data_dir / "run" / "serve.json").read_text())
        return content

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT/``."""
        return self.front or str(self.run_file["url"])

    @property
    def websocket_url(self) -> str:
        if self.front is not None:
            return f"{self.front.replace('http', 'ws', 1)}ws/"
        return str(self.run_file["websocket_url"])

    @property
    def operator_password(self) -> str:
        return (self.data_dir / "first-run" / "operator-password").read_text().strip()

    @property
    def agent_api_key(self) -> str:
        return (self.data_dir / "first-run" / "agent-api-key").read_text().strip()

    def manage(self, *arguments: str, seconds: float = 90.0) -> subprocess.CompletedProcess[str]:
        """Run a management command of this installation to its end."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=PROJECT_ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def start(self) -> None:
        """Start `serve` and wait until it is ready."""
        self.spawn([sys.executable, "manage.py", "serve"])
        self.wait_until_ready()

    def spawn(self, command: list[str]) -> None:
        """Start the command as this installation's; its output goes to the installation's own file."""
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        with self.output_path.open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=PROJECT_ROOT, env=self.environment, stdout=output, stderr=output, start_new_session=True
            )

    def wait_until_ready(self) -> None:
        """Wait for ``serve.json``; fail at once, with the output, when the process ends before."""
        run_file = self.data_dir / "run" / "serve.json"

        def is_ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"it ended:\n{self.output}"
            # One that was killed leaves its file; make's child writes its own pid.
            return run_file.exists() and self.run_file["pid"] in {process.pid for process in self.list_processes()}

        try:
            wait_until(is_ready, seconds=START_SECONDS, what="readiness")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from None

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET."""
        try:
            with urllib.request.urlopen(f"{self.url}{path.lstrip('/')}", timeout=10) as answer:  # noqa: S310  # http
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def list_processes(self) -> list[psutil.Process]:
        """The supervisor and all that came from it."""
        assert self.process is not None
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def stop(self) -> float:
        """Ask it to stop; the seconds that it took."""
        assert self.process is not None
        started = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(STOP_SECONDS + 5)
        return time.monotonic() - started

    def kill(self) -> None:
        """End whatever may be left of it."""
        if self.process is None or self.process.poll() is not None:
            return
        left = self.list_processes()
        for process in left:
            process.kill()
        self.process.wait(STOP_SECONDS)
        psutil.wait_procs(left, timeout=STOP_SECONDS)


def list_running(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; one that ended and was not yet reaped does not count."""

    def is_running(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return [process for process in processes if is_running(process)]


@contextmanager
def run_product(data_dir: Path, **variables: str) -> Iterator[Product]:
    """A started product; stopped, or killed, at the end. With ``TEST_WEB=daphne`` it is asked by its `runserver`."""
    product = Product(data_dir=data_dir, variables=variables)
    try:
        product.start()
        with run_development_server(product) if IS_DAPHNE else nullcontext():
            yield product
        product.stop()
    finally:
        product.kill()


@contextmanager
def run_development_server(product: Product) -> Iterator[None]:
    """daphne's `runserver` over the product's database and broker, as its front."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    output_path = product.data_dir.with_suffix(".daphne")
    with output_path.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "manage.py", "runserver", "--noreload", address],
            cwd=PROJECT_ROOT,
            env=product.environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    product.front = f"http://{address}/"
    try:
        wait_until(lambda: is_listening(address), seconds=START_SECONDS, what=f"daphne ({output_path})")
        yield
    finally:
        product.front = None
        server.terminate()
        server.wait(STOP_SECONDS)


def is_listening(address: str) -> bool:
    """Whether somebody accepts connections there."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def run_valkey(*, socket: Path, data_dir: Path) -> Iterator[None]:
    """An embedded Valkey on the socket."""
    plan = make_broker_plan(socket=socket, data_dir=data_dir, parent_pid=os.getpid())
    with (data_dir / "valkey.out").open("wb") as output:
        process = subprocess.Popen(
            plan.process.command, cwd=PROJECT_ROOT, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_until(socket.exists, what="the embedded Valkey")
        yield
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)
