"""One `serve` a data folder: a lock that the children inherit, so that it is held until the last of them is gone.

Standard library only: ``make stop`` and ``make reset`` use it with any interpreter.
"""

from __future__ import annotations

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mcp_site.errors import StartRefused

LOCK_FILE: Final = "serve.lock"
LEFTOVER_SECONDS: Final = 5.0
"""How long the children of a `serve` that was killed may take to vanish."""
POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """What the holder wrote into the lock."""

    pid: int | None
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LockFile:
    """The open lock of a data folder."""

    path: Path
    descriptor: int

    def try_lock(self) -> bool:
        """Take the lock; whether it was free."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def read_holder(self) -> Holder:
        """Who has it, or had it last."""
        pid, _, address = os.pread(self.descriptor, 1024, 0).decode(errors="replace").partition("\n")
        return Holder(pid=int(pid) if pid.isdecimal() else None, address=address.strip())

    def write_holder(self, *, address: str) -> None:
        """Note this process and its address, for whoever is refused."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, f"{os.getpid()}\n{address}\n".encode(), 0)


def open_lock(data_dir: Path) -> LockFile | None:
    """The folder's lock, not taken; ``None`` where nothing was ever started."""
    path = data_dir / LOCK_FILE
    try:
        return LockFile(path=path, descriptor=os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except (FileNotFoundError, NotADirectoryError):
        return None


def acquire_lock(data_dir: Path) -> LockFile:
    """Take the lock, which every child must inherit.

    Raises:
        StartRefused: another `serve` has it.
    """
    path = data_dir / LOCK_FILE
    lock = LockFile(path=path, descriptor=os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    give_up_at = time.monotonic() + LEFTOVER_SECONDS
    while not lock.try_lock():
        holder = lock.read_holder()
        if holder.pid is not None and _is_alive(holder.pid):
            where = f", {holder.address}" if holder.address else ""
            raise StartRefused(f"already running (pid {holder.pid}{where}); `make stop` stops it")
        if time.monotonic() >= give_up_at:
            raise StartRefused(f"processes of an earlier start still hold {path}; end them first")
        time.sleep(POLL_SECONDS)
    lock.write_holder(address="")
    return lock


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
