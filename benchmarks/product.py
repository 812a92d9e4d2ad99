"""The product as the benchmarks start it: `manage.py serve`, pinned settings, a private folder, a free port."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.processes import Roles, find_roles, is_running, read_busy_seconds, read_cpu_seconds
from benchmarks.sealing import encode_base64url

PROJECT_ROOT: Final = Path(__file__).resolve().parents[1]
SERVE: Final = ("manage.py", "serve")
START_SECONDS: Final = 90.0
LOG_LINES: Final = 20
"""Of what it printed last, how much is shown when it fails."""
STOP_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.005
CALM_SHARE: Final = 0.1
"""Of a core: below it the product counts as idle."""
QUIET_SHARE: Final = 0.2
"""Of a core: below it the whole machine does."""

PINNED: Final[Mapping[str, str]] = {
    "MCP_BIND": "127.0.0.1",
    "MCP_PORT": "0",
    "MCP_WEB_WORKERS": "1",
    "MCP_TASK_WORKERS": "2",
    "MCP_DATABASE_THREADS": "4",
    "MCP_LOG_LEVEL": "info",
    "MCP_MAX_IN_FLIGHT": "64",
    "MCP_MAX_CONNECTIONS": "2000",
    "MCP_HEARTBEAT_INTERVAL_SECONDS": "20",
    # One account, from one address, does what a thousand would.
    "MCP_REQUESTS_PER_MINUTE": "100000000",
    "MCP_SIGN_INS_PER_MINUTE": "1000000",
    "MCP_CONNECTIONS_PER_MINUTE": "1000000",
    "MCP_CONNECTIONS_PER_ACCOUNT": "2000",
    "MCP_CONNECTIONS_PER_ADDRESS": "2000",
}
"""All that a figure depends on, written down even where it is the default."""


class ProductError(Exception):
    """It does not start, does not stop, or leaves something behind."""


class LoadFailed(Exception):
    """The load generator gave up."""


class RunFile(msgspec.Struct, frozen=True):
    """What `serve` writes of itself, as far as it is needed here."""

    pid: int
    url: str
    websocket_url: str


class Product:
    """One installation in a folder; started and stopped any number of times."""

    def __init__(self, *, folder: Path, variables: Mapping[str, str]) -> None:
        self.data_dir = folder / "var"
        self.variables = dict(variables)
        self._log = folder / "serve.out"
        self._process: subprocess.Popen[bytes] | None = None
        self._run_file = self.data_dir / "run" / "serve.json"

    @property
    def environment(self) -> dict[str, str]:
        """What its processes are started with."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.data_dir.parent),
            "MCP_DATA_DIR": str(self.data_dir),
            **self.variables,
        }

    @property
    def url(self) -> str:
        return self._read_run_file().url

    @property
    def websocket_url(self) -> str:
        return self._read_run_file().websocket_url

    @property
    def key(self) -> str:
        """The first agent's."""
        return (self.data_dir / "first-run" / "agent-api-key").read_text().strip()

    def start(self) -> float:
        """Start it; the seconds until ``/readyz`` answers 200.

        Raises:
            ProductError: it does not become ready.
        """
        # So that benchmarks that are killed leave nothing running.
        command = (sys.executable, "-m", "mcp_site.serving.parent", str(os.getpid()), sys.executable, *SERVE)
        started = time.perf_counter()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=PROJECT_ROOT, env=self.environment, stdout=log, stderr=log)
        while not self._run_file.exists():
            self.check_runs()
            if time.perf_counter() - started > START_SECONDS:
                raise ProductError(f"the product is not ready after {START_SECONDS:g} s:\n{self._read_log()}")
            time.sleep(POLL_SECONDS)
        with urllib.request.urlopen(f"{self._read_run_file().url}readyz", timeout=10) as answer:  # noqa: S310  # our own
            if answer.status != 200:
                raise ProductError(f"/readyz answers {answer.status}")
        return time.perf_counter() - started

    def manage(self, *arguments: str) -> None:
        """Run a management command to its end.

        Raises:
            ProductError: it fails.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._run([sys.executable, "manage.py", *arguments])

    def register_signing_key(self) -> bytes:
        """Let the agent sign commands at level critical; the seed of its key, 32 bytes."""
        seed = os.urandom(32)
        public_key = encode_base64url(Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw())
        self.manage("register_command_key", "agent", "--quiet", "--", public_key)
        self.manage(
            "shell",
            "-c",
            "from security.models import Account; from security.services import save_account;"
            " account = Account.objects.get(username='agent'); account.security_level_max = 'critical';"
            " save_account(account=account)",
        )
        return seed

    def run_module(self, name: str, *arguments: str, given: bytes = b"") -> bytes:
        """Run a module of ours with the product's settings; what it prints.

        Raises:
            ProductError: it fails.
        """
        return self._run([sys.executable, "-m", name, *arguments], given=given)

    def stop(self) -> float:
        """Stop it; the seconds until nothing of it runs.

        Raises:
            ProductError: it does not end in time, or not in order, or a process is left.
        """
        assert self._process is not None
        pids = [pid for role in self.find_roles().values() for pid in role]
        started = time.perf_counter()
        self._process.send_signal(signal.SIGTERM)
        try:
            exit_code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise ProductError(f"the product does not stop within {STOP_SECONDS:g} s") from None
        seconds = time.perf_counter() - started
        left = [pid for pid in pids if is_running(pid)]
        if exit_code != 0 or left:
            raise ProductError(f"the product stopped with exit code {exit_code} and left the processes {left}")
        return seconds

    def kill(self) -> None:
        """End what may be left of it: its processes end with the supervisor."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)

    def check_runs(self) -> None:
        """Raise ``ProductError``, with what it said last, where it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise ProductError(f"the product ended with exit code {self._process.returncode}:\n{self._read_log()}")

    def find_roles(self) -> Roles:
        """Its processes by part."""
        assert self._process is not None
        return find_roles(self._process.pid)

    def _run(self, command: list[str], *, given: bytes = b"") -> bytes:
        environment = {**self.environment, "DJANGO_SETTINGS_MODULE": "mcp_site.settings", "MCP_LOG_LEVEL": "error"}
        # As in ``start``.
        ended = subprocess.run(
            [sys.executable, "-m", "mcp_site.serving.parent", str(os.getpid()), *command],
            cwd=PROJECT_ROOT,
            env=environment,
            input=given,
            capture_output=True,
            check=False,
        )
        if ended.returncode != 0:
            said = ended.stderr.decode(errors="replace").strip().splitlines()
            raise ProductError("\n".join([f"{' '.join(command[1:])} failed:", *said[-LOG_LINES:]]))
        return ended.stdout

    def _read_log(self) -> str:
        """The last of what its processes said; without what it tells a person, which has secrets."""
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join([line for line in lines if " | " in line or line.startswith("error:")][-LOG_LINES:])

    def _read_run_file(self) -> RunFile:
        return msgspec.json.decode(self._run_file.read_bytes(), type=RunFile)


@contextmanager
def install_product(variables: Mapping[str, str]) -> Iterator[Product]:
    """A product in a folder of its own, not started yet; both are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="mcp-benchmark-"))
    product = Product(folder=folder, variables={**PINNED, **variables})
    try:
        yield product
    except LoadFailed:
        product.check_runs()
        raise
    finally:
        product.kill()
        shutil.rmtree(folder, ignore_errors=True)


def wait_until_calm(roles: Roles, *, seconds: float = 15.0, window_seconds: float = 0.5) -> None:
    """Return once the processes are idle, or after so many seconds."""
    pids = [pid for role in roles.values() for pid in role]
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        before = read_cpu_seconds(pids)
        time.sleep(window_seconds)
        if read_cpu_seconds(pids) - before < CALM_SHARE * window_seconds:
            return


def wait_until_quiet(*, seconds: float, window_seconds: float = 2.0) -> None:
    """Return once the machine has nothing else to do, or after so many seconds; the product must be idle."""
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        before = read_busy_seconds()
        time.sleep(window_seconds)
        if read_busy_seconds() - before < QUIET_SHARE * window_seconds:
            return


def find_filesystem(path: Path) -> str:
    """The kind of file system that the path is on: what a commit costs depends on it."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, name, *_ = line.split()
        if len(mount) > len(best) and path.resolve().is_relative_to(mount):
            best, kind = mount, name
    return kind
