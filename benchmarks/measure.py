"""The measurements themselves: each drives the product from outside and gives its result."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec

from benchmarks.load import Measured, Specification, Workload
from benchmarks.processes import Roles, read_pss_bytes
from benchmarks.product import PROJECT_ROOT, LoadFailed, Product, wait_until_calm, wait_until_quiet
from benchmarks.results import LoadResult, MemoryResult, StartResult, make_load_result
from benchmarks.sealing import Level

RUN_SECONDS: Final = 180.0
"""How long a run of the load generator may take beyond its window."""
WARMING_CONNECTIONS: Final = 50
"""Opened and closed before idle ones are weighed, so that what is made once is there."""

PING_LOADS: Final = ((1, 1), (50, 1), (1, 32))
SEALED_LOAD: Final = (1, 32)
"""Measured at the higher levels too: what they cost is the difference, which more in flight makes the plainer."""
EXECUTE_CONNECTIONS: Final = (1, 10, 50, 200)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A running server and what is known of it."""

    url: str
    key: str
    roles: dict[str, tuple[int, ...]]
    """Empty where its processes are not this machine's: then there are no figures of CPU time."""
    signing_seed: bytes = b""
    """Of a key that is registered for the account, where it may use level critical; 32 bytes."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the server, how often at once, for how long."""

    workload: Workload
    connections: int
    in_flight: int = 1
    level: Level = Level.STANDARD
    seconds: float
    warm_up_seconds: float


def measure_loads(target: Target, loads: Sequence[Load], *, repeats: int, patience_seconds: float) -> list[LoadResult]:
    """Each load so many times, all of them in turn, so that what else happens on the machine meets all alike."""
    windows: list[list[Measured]] = [[] for _ in loads]
    for _ in range(repeats):
        for load, measured in zip(loads, windows, strict=True):
            wait_until_quiet(seconds=patience_seconds)
            measured.append(run_load(target, load))
    return [
        make_load_result(
            workload=load.workload,
            connections=load.connections,
            in_flight=load.in_flight,
            level=load.level,
            windows=measured,
        )
        for load, measured in zip(loads, windows, strict=True)
    ]


def run_load(target: Target, load: Load, *, marked: tuple[int, ...] = ()) -> Measured:
    """One window.

    Raises:
        LoadFailed: a connection was refused, or calls were not answered.
    """
    specification = Specification(
        url=target.url,
        key=target.key,
        workload=load.workload,
        connections=load.connections,
        in_flight=load.in_flight,
        level=load.level,
        signing_seed=target.signing_seed,
        seconds=load.seconds,
        warm_up_seconds=load.warm_up_seconds,
        processes=target.roles,
        marked=marked,
    )
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        cwd=PROJECT_ROOT,
        input=msgspec.json.encode(specification) + b"\n",
        stdout=subprocess.PIPE,
        timeout=load.seconds + load.warm_up_seconds + RUN_SECONDS,
        check=False,
    )
    if ended.returncode != 0:
        raise LoadFailed(f"{load.workload} with {load.connections} connections failed")
    return msgspec.json.decode(ended.stdout, type=Measured)


@contextmanager
def hold_connections(target: Target, *, count: int) -> Iterator[None]:
    """So many idle, authenticated connections.

    Raises:
        LoadFailed: one was refused, or lost meanwhile.
    """
    specification = Specification(url=target.url, key=target.key, workload=Workload.IDLE, connections=count)
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load"], cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(specification) + b"\n")
        process.stdin.flush()
        try:
            if process.stdout.readline().strip() != b'"ready"':
                raise LoadFailed(f"{count} connections cannot be opened")
            yield
        finally:
            process.stdin.close()
            line = process.stdout.readline()
    if process.returncode != 0 or msgspec.json.decode(line, type=Measured).errors:
        raise LoadFailed(f"of {count} idle connections some were lost")


def weigh(roles: Roles) -> dict[str, int]:
    """The memory of each part, once it is idle."""
    wait_until_calm(roles)
    return {role: read_pss_bytes(pids) for role, pids in roles.items()}


def measure_memory(target: Target, *, started: Mapping[str, int], connections: int) -> MemoryResult:
    """What idle connections add; ``started`` is what ``weigh`` said before there was any load."""
    with hold_connections(target, count=min(WARMING_CONNECTIONS, connections)):
        pass
    used = weigh(target.roles)
    with hold_connections(target, count=connections):
        connected = weigh(target.roles)
    return MemoryResult(
        started=dict(started),
        used=used,
        connected=connected,
        connections=connections,
        per_connection_bytes=(connected["web"] - used["web"]) / connections,
    )


def measure_starts(product: Product, *, repeats: int) -> StartResult:
    """The first start and so many more; the product is started at the end."""
    first = product.start()
    seconds, stops = [], []
    for _ in range(repeats):
        stops.append(product.stop())
        seconds.append(product.start())
    return StartResult(
        first_seconds=first,
        second_seconds=statistics.median(seconds),
        second_repeats=seconds,
        stop_seconds=statistics.median(stops),
        stop_repeats=stops,
    )
