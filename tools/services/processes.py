"""What a tool left running: finding and ending the processes that came from one.

Linux only, by ``/proc`` and by being the subreaper, which orphans of our descendants come to. Elsewhere a tool's
children are its own affair, and the reference says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_MAX_ROUNDS = 10
"""Killing is repeated, as a process may start another while it is looked for."""


def adopt_orphans() -> None:
    """Make this process the one that orphans of its descendants come to."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_descendants(*, of: int | None = None, spare: frozenset[int] = frozenset()) -> int:
    """Kill what came from a process, this one by default, but not itself; how many were found.

    Children in ``spare`` are left alone, with all that came from them.
    """
    root = of or os.getpid()
    found = 0
    for _ in range(_MAX_ROUNDS):
        children = [pid for pid in list_children(root) if pid not in spare]
        descendants = [*children, *(pid for child in children for pid in iterate_descendants(child))]
        if not descendants:
            break
        found += len(descendants)
        for pid in descendants:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if root == os.getpid():
            _reap(descendants)
    return found


def kill_tree(*, pid: int) -> None:
    """Kill a process and all that came from it."""
    # Stopped first, so that it starts nothing while its descendants are looked for.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGSTOP)
    kill_descendants(of=pid)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def iterate_descendants(pid: int) -> Iterator[int]:
    """All processes that came from ``pid`` and still run under it, children before theirs."""
    for child in list_children(pid):
        yield child
        yield from iterate_descendants(child)


def list_children(pid: int) -> list[int]:
    """The process's children, of all its threads."""
    children: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.scandir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                children += map(int, Path(task.path, "children").read_text().split())
    return children


def _reap(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
