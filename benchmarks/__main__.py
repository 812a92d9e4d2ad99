"""``python -m benchmarks``: start the product, measure it, stop it, write what was found."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import security
from benchmarks.lists import UNTHROTTLED, measure_lists
from benchmarks.load import Workload
from benchmarks.measure import (
    EXECUTE_CONNECTIONS,
    PING_LOADS,
    SEALED_LOAD,
    Load,
    Target,
    measure_loads,
    measure_memory,
    measure_starts,
    weigh,
)
from benchmarks.picture import draw_report
from benchmarks.processes import find_roles
from benchmarks.product import PINNED, PROJECT_ROOT, LoadFailed, ProductError, find_filesystem, install_product
from benchmarks.profiles import PARTS, profile_loads
from benchmarks.results import (
    LoadResult,
    Profile,
    Report,
    describe_database,
    describe_machine,
    get_now,
    list_versions,
    read_commit,
    write_report,
)
from benchmarks.sealing import Level
from benchmarks.tables import format_report

RESULTS: Final = PROJECT_ROOT / "benchmarks" / "results"
PROFILED_CONNECTIONS: Final = 10
"""Of `tools.execute`: the load nearest to this is profiled."""
SECRET: Final = ("DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "MCP_SECRET_KEY", "MCP_MASTER_KEY")
"""Settings that are not written into results."""
PARTS_OF_ALL: Final = ("start", "ping", "execute", "memory")
LISTS: Final = "lists"
"""Measured only where it is asked for: it takes minutes, and a database of its own."""
SECURITY: Final = "security"
"""Measured alone, with options of its own."""
LOAD_REPEATS: Final = 3
LIST_REPEATS: Final = 5
ALL: Final = "all"


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The command line."""

    what: frozenset[str]
    seconds: float
    warm_up: float
    repeat: int
    list_repeat: int
    rows: int
    only: str
    patience: float
    connections: tuple[int, ...] | None
    idle_connections: int
    profile: bool
    url: str | None
    key: str | None
    pid: int | None
    output: Path
    variables: dict[str, str]


def parse_options(arguments: Sequence[str]) -> Options:
    """The command line as options; ends the process where they do not fit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "what",
        nargs="*",
        metavar="WHAT",
        help=f"of {', '.join(PARTS_OF_ALL)}, by default all; or lists; or security",
    )
    parser.add_argument("--seconds", type=_positive(float), default=8.0, help="of each window (default %(default)s)")
    parser.add_argument("--warm-up", type=_positive(float), default=2.0, metavar="SECONDS", help="before each window")
    parser.add_argument(
        "--repeat",
        type=_positive(int),
        metavar="N",
        help=f"windows of each load (default {LOAD_REPEATS}), requests for each list ({LIST_REPEATS}); shows medians",
    )
    parser.add_argument("--rows", type=_positive(int), default=1_000_000, metavar="N", help="runs behind the lists")
    parser.add_argument("--only", default="", metavar="PATTERN", help="ask only for the lists whose name matches")
    parser.add_argument(
        "--patience",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="wait so long, before each window, for everything else on the machine to be idle (default: do not)",
    )
    parser.add_argument("--connections", type=_parse_list, metavar="N,N,…", help="instead of the usual numbers of them")
    parser.add_argument("--idle-connections", type=_positive(int), default=1000, metavar="N", help="for the memory")
    parser.add_argument("--profile", action="store_true", help="run the loads again under a profiler")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_parse_setting,
        metavar="NAME=VALUE",
        help="a setting of the server, such as MCP_TASK_WORKERS=4, or DATABASE_URL, whose database is written to",
    )
    parser.add_argument("--url", help="measure a server that runs already: its WebSocket; the key is in MCP_API_KEY")
    parser.add_argument("--pid", type=_positive(int), help="with --url: its `serve`, where it runs on this machine")
    parser.add_argument("--name", help="of the files in benchmarks/results/; without it they go to its local/")
    parser.add_argument("--output", type=Path, help="the JSON file; the picture is laid beside it")
    given = parser.parse_args(arguments)
    key = os.environ.get("MCP_API_KEY")
    what = frozenset(PARTS_OF_ALL if ALL in given.what or not given.what else given.what)
    known = {*PARTS_OF_ALL, LISTS}
    if not what <= known:
        parser.error(f"there is no {', '.join(sorted(what - known))}, but {', '.join((*PARTS_OF_ALL, LISTS))}")
    if LISTS in what and what != {LISTS}:
        parser.error("lists are measured alone: the others want a database that is small")
    if given.url is not None:
        if not key:
            parser.error("--url needs the agent's key in MCP_API_KEY")
        if given.profile or what & {"start", "memory", LISTS}:
            parser.error("start, memory, lists and --profile need a product that the benchmarks start themselves")
    elif given.pid is not None:
        parser.error("--pid goes with --url")
    name = given.name or f"local/{'-'.join(given.what) or ALL}"
    return Options(
        what=what,
        seconds=given.seconds,
        warm_up=given.warm_up,
        repeat=given.repeat or LOAD_REPEATS,
        list_repeat=given.repeat or LIST_REPEATS,
        rows=given.rows,
        only=given.only,
        patience=given.patience,
        connections=given.connections,
        idle_connections=given.idle_connections,
        profile=given.profile,
        url=given.url,
        key=key,
        pid=given.pid,
        output=given.output or RESULTS / f"{name}.json",
        variables={**(UNTHROTTLED if LISTS in what else {}), **dict(given.set)},
    )


def measure(options: Options) -> Report:
    """Everything that is asked for.

    Raises:
        LoadFailed, ProductError: something did not work; nothing is left running.
    """
    commit, has_local_changes = read_commit(PROJECT_ROOT)
    report = Report(
        command=shlex.join(["python", "-m", "benchmarks", *(_hide_secret(argument) for argument in sys.argv[1:])]),
        taken_at=get_now(),
        machine=describe_machine(),
        versions=list_versions(),
        commit=commit,
        has_local_changes=has_local_changes,
        settings={**PINNED, **{name: value for name, value in options.variables.items() if name not in SECRET}},
        database=describe_database(
            url=options.variables.get("DATABASE_URL"), filesystem=find_filesystem(Path(tempfile.gettempdir()))
        ),
    )
    return measure_running(options, report) if options.url is not None else measure_own(options, report)


def measure_running(options: Options, report: Report) -> Report:
    """A server that somebody else started."""
    roles = dict(find_roles(options.pid)) if options.pid is not None else {}
    target = Target(url=options.url or "", key=options.key or "", roles=roles)
    report = msgspec.structs.replace(report, settings={}, database={"engine": "unknown"})
    return measure_workloads(options, report, target)


def measure_own(options: Options, report: Report) -> Report:
    """A product of our own."""
    with install_product(options.variables) as product:
        if LISTS in options.what:
            say(f"filling and asking for lists of {options.rows:,} runs")
            lists = measure_lists(product, rows=options.rows, repeats=options.list_repeat, only=options.only)
            return msgspec.structs.replace(report, lists=lists)
        if "start" in options.what:
            say("starting and stopping")
            report = msgspec.structs.replace(report, start=measure_starts(product, repeats=options.repeat))
        else:
            product.start()
        seed = product.register_signing_key() if "ping" in options.what else b""
        target = Target(url=product.websocket_url, key=product.key, roles=dict(product.find_roles()), signing_seed=seed)
        started = weigh(target.roles) if "memory" in options.what else {}
        report = measure_workloads(options, report, target)
        if "memory" in options.what:
            say("memory")
            memory = measure_memory(target, started=started, connections=options.idle_connections)
            report = msgspec.structs.replace(report, memory=memory)
        product.stop()
    return report


def measure_workloads(options: Options, report: Report, target: Target) -> Report:
    """Ping and execute, as far as they are asked for."""
    ping: list[LoadResult] = []
    execute: list[LoadResult] = []
    if "ping" in options.what:
        say("session.ping")
        ping = _measure_loads(options, target, [*list_ping_loads(options), *list_sealed_loads(options, target)])
    if "execute" in options.what:
        say("tools.execute")
        execute = _measure_loads(options, target, list_execute_loads(options))
    return msgspec.structs.replace(report, ping=ping, execute=execute)


def _measure_loads(options: Options, target: Target, loads: Sequence[Load]) -> list[LoadResult]:
    return measure_loads(target, loads, repeats=options.repeat, patience_seconds=options.patience)


def profile(options: Options, report: Report) -> list[Profile]:
    """The loads that were measured, under a profiler; of `tools.execute` one."""
    measured_us = {
        (result.workload.value, result.connections, result.in_flight, part): result.median.cpu_us[part]
        for result in (*report.ping, *report.execute)
        for part in PARTS
        if result.level is Level.STANDARD
    }
    profiles: list[Profile] = []
    if report.ping:
        found = profile_loads(options.variables, list_ping_loads(options), measured_us=measured_us)
        # Pings never reach the worker.
        profiles += [profile for profile in found if profile.part == "web"]
    if report.execute:
        load = min(list_execute_loads(options), key=lambda load: abs(load.connections - PROFILED_CONNECTIONS))
        profiles += profile_loads(options.variables, [load], measured_us=measured_us)
    return profiles


def list_ping_loads(options: Options) -> list[Load]:
    shapes: Sequence[tuple[int, int]] = PING_LOADS
    if options.connections is not None:
        shapes = (*((count, 1) for count in options.connections), (1, 32))
    return [_make_load(options, Workload.PING, connections, in_flight) for connections, in_flight in shapes]


def list_sealed_loads(options: Options, target: Target) -> list[Load]:
    """Pings at the higher levels, as far as the server's account may use them."""
    levels = (Level.HIGH, Level.CRITICAL) if target.signing_seed else (Level.HIGH,)
    load = _make_load(options, Workload.PING, *SEALED_LOAD)
    return [msgspec.structs.replace(load, level=level) for level in levels]


def list_execute_loads(options: Options) -> list[Load]:
    counts = options.connections or EXECUTE_CONNECTIONS
    return [_make_load(options, Workload.EXECUTE, connections, 1) for connections in counts]


def _make_load(options: Options, workload: Workload, connections: int, in_flight: int) -> Load:
    return Load(
        workload=workload,
        connections=connections,
        in_flight=in_flight,
        seconds=options.seconds,
        warm_up_seconds=options.warm_up,
    )


def say(text: str) -> None:
    """What is being done, for whoever waits."""
    print(f"… {text}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """The exit code: 1 where the product failed or an answer was wrong."""
    if arguments[:1] == [SECURITY]:
        return security.main(arguments[1:])
    options = parse_options(arguments)
    # As Ctrl-C does: what was started is stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    try:
        report = measure(options)
        write(report, options)
        if options.profile:
            say("profiling")
            report = msgspec.structs.replace(report, profiles=profile(options, report))
            write(report, options)
    except (LoadFailed, ProductError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(format_report(report))
    print(f"\n{options.output}", *([] if report.lists else [options.output.with_suffix(".png")]), sep="\n")
    return 1 if report.list_errors() else 0


def write(report: Report, options: Options) -> None:
    """The JSON, and the picture of what there is one of."""
    write_report(report, path=options.output)
    if report.lists is None:
        draw_report(report, path=options.output.with_suffix(".png"))


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError("must be above 0")
        return value

    return parse


def _parse_setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, not {text!r}")
    return name, value


def _hide_secret(argument: str) -> str:
    """The argument as it may stand in a result: ``--set NAME=VALUE`` may be one word or two."""
    name, equals, _ = argument.removeprefix("--set=").partition("=")
    return f"{name}=…" if equals and name in SECRET else argument


def _parse_list(text: str) -> tuple[int, ...]:
    return tuple(int(_positive(int)(part)) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
