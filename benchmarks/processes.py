"""What the kernel says of the product's processes: which they are, CPU time, memory. Linux only; reads ``/proc``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")

Roles = Mapping[str, tuple[int, ...]]
"""The ids of the processes of each part: ``web``, ``worker`` (Celery's parent), ``pool`` (its children) …"""

MARKS: Final = {
    "valkey": ("valkey-server", "redis-server"),
    "web": ("serve web",),
    "scheduler": ("serve scheduler", "[celery beat]"),
    # Celery changes its processes' titles.
    "worker": ("serve worker", "[celeryd:"),
}
POOL: Final = "pool"
SUPERVISOR: Final = "supervisor"


def find_roles(supervisor: int) -> Roles:
    """The processes under a supervisor by their part, itself included."""
    children = _list_children()
    roles: dict[str, list[int]] = {SUPERVISOR: [supervisor]}
    for child in children.get(supervisor, ()):
        role = _name_role(child)
        roles.setdefault(role, []).append(child)
        descendants = _list_descendants(child, children)
        if descendants:
            roles.setdefault(POOL if role == "worker" else role, []).extend(descendants)
    return {role: tuple(sorted(pids)) for role, pids in roles.items()}


def read_cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time that the processes have used, user and system, all of their threads."""
    return sum(_read_cpu_ticks(pid) for pid in pids) / TICKS_PER_SECOND


def read_pss_bytes(pids: Iterable[int]) -> int:
    """Proportional set size: memory that is shared with other processes counts in parts."""
    return sum(_read_pss_kilobytes(pid) for pid in pids) * 1024


def read_busy_seconds() -> float:
    """CPU time that all cores together have been busy, whoever with."""
    name, *ticks = (PROC / "stat").read_text().partition("\n")[0].split()
    assert name == "cpu"
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen, *_ = map(int, ticks)
    return (user + nice + system + interrupts + soft_interrupts + stolen) / TICKS_PER_SECOND


def is_running(pid: int) -> bool:
    """Whether there is such a process, other than one that ended and was not reaped yet."""
    fields = _read_stat(pid)
    return bool(fields) and fields[0] not in ("Z", "X")


def _read_stat(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` from the third on, which is the state; none where the process is gone."""
    try:
        # The second field is the name in parentheses, which may hold anything.
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _read_cpu_ticks(pid: int) -> int:
    fields = _read_stat(pid)
    return int(fields[11]) + int(fields[12]) if fields else 0


def _read_pss_kilobytes(pid: int) -> int:
    for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise ValueError(f"process {pid} has no proportional set size")


def _list_children() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdecimal() and (fields := _read_stat(int(entry.name))) and fields[0] not in ("Z", "X"):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    return children


def _list_descendants(pid: int, children: Mapping[int, list[int]]) -> list[int]:
    found = []
    for child in children.get(pid, ()):
        found += [child, *_list_descendants(child, children)]
    return found


def _name_role(pid: int) -> str:
    command = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    for role, marks in MARKS.items():
        if any(mark in command for mark in marks):
            return role
    raise ValueError(f"process {pid} is none of the product's: {command[:200]}")
