"""Tools that misbehave, wait and report on demand: an app that only tests install, by ``MCP_APPS``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from django.db import transaction

from tools.authoring import ToolContext, ToolError, tool


@tool(idempotent=True)
def echo(value: Any) -> Any:
    """Give back what came in."""
    return value


@tool(timeout_seconds=30)
def wait_for(context: ToolContext, path: str) -> str:
    """Tell that it runs, then wait until the file is there."""
    context.progress(message="waiting")
    while not Path(path).exists():
        time.sleep(0.01)
    return "found"


@tool
def report(context: ToolContext, times: int, *, end: str = "") -> int:
    """Report that often, then end as asked: well, or as a ToolError."""
    for number in range(times):
        context.progress(number / times, f"step {number}")
    if end:
        raise ToolError(end)
    return times


@tool(timeout_seconds=60)
def stream(context: ToolContext, path: str, *, steps: int = 100) -> int:
    """Report and emit output, step by step, until the file is there."""
    number = 0
    while not Path(path).exists():
        number += 1
        context.progress(min(number / steps, 1.0), f"step {number}")
        context.emit_output(f"line {number}\n")
        time.sleep(0.05)
    return number


@tool
def fail() -> None:
    """Fail in a way that nobody expected."""
    raise RuntimeError("the password is swordfish")


@tool(timeout_seconds=0.3)
def loop_forever() -> None:
    """Never end, and never call anything that could be interrupted otherwise."""
    while True:
        pass


@tool(timeout_seconds=0.3, idempotent=True)
def loop_idempotently() -> None:
    """Never end; it may be run again."""
    while True:
        pass


@tool(timeout_seconds=0.3)
def swallow_everything() -> None:
    """Go on whatever is raised, as far as authors think of it."""
    while True:
        with contextlib.suppress(Exception):
            time.sleep(10)


@tool(timeout_seconds=0.3)
def swallow_interruptions() -> None:
    """Go on whatever is raised, the end of its time too."""
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(10)


@tool(timeout_seconds=0.3)
async def hide_in_a_task() -> None:
    """Burn its time in a task that nobody awaits."""

    async def burn() -> None:
        while True:  # noqa: ASYNC110  # what is tested
            await asyncio.sleep(0)

    burning = asyncio.create_task(burn())
    await asyncio.sleep(60)
    burning.cancel()


@tool(timeout_seconds=0.5)
def keep_the_database_busy() -> None:
    """Begin and end transactions until the time is over."""
    while True:
        with transaction.atomic():
            pass


@tool(timeout_seconds=0.5)
def keep_reporting(context: ToolContext) -> None:
    """Report without an end."""
    while True:
        context.progress(message="again")


@tool
def leave() -> None:
    """Ask the whole process to end."""
    sys.exit(3)


@tool
def interrupt() -> None:
    """Pretend that somebody pressed Ctrl-C."""
    raise KeyboardInterrupt


@tool
async def cancel_itself() -> None:
    """End as a cancelled coroutine."""
    raise asyncio.CancelledError


@tool
def lie() -> int:
    """Give back what its type does not allow."""
    return "not a number"  # type: ignore[return-value]  # what is tested


@tool
def swell(size: int) -> str:
    """Give back so many characters."""
    return "x" * size


@tool
def count_high(power: int) -> int:
    """Two to the power."""
    high: int = 2**power
    return high


@tool
def use_scratch(context: ToolContext, *, fail: bool = False) -> str:
    """Write into the scratch folder and tell where it is."""
    (context.scratch / "folder").mkdir()
    (context.scratch / "folder" / "file").write_text("x")
    if fail:
        raise ToolError(str(context.scratch))
    return str(context.scratch)


@tool(needs_port=True)
def use_port(context: ToolContext, *, fail: bool = False) -> int:
    """Listen on the run's port, and tell which it is."""
    with socket.create_server(("127.0.0.1", context.port)):
        if fail:
            raise ToolError("as asked")
    return context.port


@tool(needs_port=True)
def leave_server(context: ToolContext) -> str:
    """End well, and leave a process behind that listens on the run's port."""
    with socket.create_server(("127.0.0.1", context.port)) as server:
        server.set_inheritable(True)
        os.posix_spawn("/bin/sleep", ["sleep", "60"], os.environ)
    return "left"


@tool
def want_port(context: ToolContext) -> int:
    """Take a port that was not asked for."""
    return context.port
