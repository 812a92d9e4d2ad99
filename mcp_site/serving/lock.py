"""One `serve` a data folder: a lock that the children inherit, so that it is held until the last of them is gone."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

from mcp_site.errors import StartRefused

LEFTOVER_SECONDS: Final = 5.0
"""How long the children of a `serve` that was killed may take to vanish."""
POLL_SECONDS: Final = 0.05


def acquire_lock(path: Path) -> int:
    """Take the lock; the descriptor that holds it, which every child must inherit.

    Raises:
        StartRefused: another `serve` has it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    give_up_at = time.monotonic() + LEFTOVER_SECONDS
    while not _try_lock(descriptor):
        holder, address = _read_holder(descriptor)
        if holder is not None and _is_alive(holder):
            where = f", {address}" if address else ""
            raise StartRefused(f"already running (pid {holder}{where}); `make stop` stops it")
        if time.monotonic() >= give_up_at:
            raise StartRefused(f"processes of an earlier start still hold {path}; end them first")
        time.sleep(POLL_SECONDS)
    write_holder(descriptor, address="")
    return descriptor


def write_holder(descriptor: int, *, address: str) -> None:
    """Note this process and its address in the lock, for whoever is refused."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n{address}\n".encode(), 0)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_holder(descriptor: int) -> tuple[int | None, str]:
    pid, _, address = os.pread(descriptor, 1024, 0).decode(errors="replace").partition("\n")
    return (int(pid) if pid.isdecimal() else None), address.strip()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
