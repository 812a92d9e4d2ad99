"""Tools that leave a durable trace of each effect outside the product: a byte in a file named after the run's key."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

from tools.authoring import ToolContext, tool


@tool(idempotent=True, timeout_seconds=60)
def mark_again(folder: str, key: str, seconds: float = 0.0) -> str:
    """Take effect, which may happen more than once; then take time."""
    _mark(Path(folder) / f"again.{key}")
    time.sleep(seconds)
    return key


@tool(timeout_seconds=60)
def mark_once(folder: str, key: str, seconds: float = 0.0) -> str:
    """Take effect, which may happen once only; then take time."""
    _mark(Path(folder) / f"once.{key}")
    time.sleep(seconds)
    return key


@tool(timeout_seconds=1.5)
def hang() -> None:
    """Wait for something that never comes."""
    time.sleep(3600)


@tool(timeout_seconds=1.5)
def loop() -> None:
    """Compute without an end and without any I/O, whatever is raised."""
    number = 0
    while True:
        try:
            number += 1
        except Exception:  # noqa: BLE001, S112  # what is tested
            continue


@tool(timeout_seconds=1.5)
def get_stuck() -> int:
    """Stay in C, where no signal's handler is run."""
    return sum(1 for _ in range(10)) + len(str(pow(7, 10**8)))


@tool(timeout_seconds=1.5)
def fork() -> None:
    """Leave children of children in sessions of their own, and wait."""
    subprocess.Popen(
        ["sh", "-c", "setsid sleep 3571 & setsid sh -c 'sleep 3571 & sleep 3571' & sleep 3571"]
    )  # a shell's own
    time.sleep(3600)


@tool
def leave_daemon() -> str:
    """End well, and leave a process behind."""
    subprocess.run(["sh", "-c", "setsid sleep 3571 >/dev/null 2>&1 & true"], check=True)  # a shell's own
    return "left"


@tool(timeout_seconds=1.5)
def flood(context: ToolContext) -> None:
    """Stream output without an end."""
    while True:
        context.emit_output("x" * 10_000)
        context.progress(0.5, "more")


@tool(timeout_seconds=60)
def clean_up(folder: str, key: str) -> None:
    """Take long, and leave a trace when ended in good order."""
    _mark(Path(folder) / f"begun.{key}")
    try:
        time.sleep(3600)
    finally:
        _mark(Path(folder) / f"cleaned.{key}")


@tool(needs_port=True, timeout_seconds=60)
def hold_port(folder: str, key: str, context: ToolContext) -> None:
    """Listen on the run's port until the end."""
    with socket.create_server(("127.0.0.1", context.port)):
        _mark(Path(folder) / f"port.{key}")
        time.sleep(3600)


def _mark(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, b"x")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
