"""A report as text for the terminal. The targets beside the figures are those that the project set itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from benchmarks.processes import POOL
from benchmarks.results import ListsResult, LoadResult, MemoryResult, Profile, Report, StartResult
from benchmarks.sealing import Level

LEVEL_TARGETS_US: Final = {Level.HIGH: (Level.STANDARD, 25), Level.CRITICAL: (Level.HIGH, 250)}
"""Above which level, and how much of the web process for each ping."""
PING_TARGETS_US: Final = {(50, 1): 120, (1, 32): 80}
"""CPU-µs of the web process a message, by connections and calls in flight."""
LIST_TARGET_MS: Final = 300
SHOWN_COSTS: Final = 16


def format_report(report: Report) -> str:
    """All of a report's tables."""
    parts = [_describe_origin(report)]
    if report.start is not None:
        parts.append(_describe_start(report.start))
    if report.ping:
        parts.append(_tabulate_ping(report.ping))
    if report.execute:
        parts.append(_tabulate_execute(report.execute))
    if report.memory is not None:
        parts.append(_tabulate_memory(report.memory))
    if report.lists is not None:
        parts.append(_tabulate_lists(report.lists))
    parts += [_tabulate_profile(profile) for profile in report.profiles]
    errors = report.list_errors()
    if errors:
        parts.append("WRONG: " + ", ".join(f"{count} x {name}" for name, count in errors.items()))
    return "\n\n".join(parts)


def sum_workers(cpu_us: Mapping[str, float]) -> float:
    """The task worker's parent and its children together."""
    return cpu_us.get("worker", 0.0) + cpu_us.get(POOL, 0.0)


def _describe_origin(report: Report) -> str:
    machine, database = report.machine, report.database
    commit = (report.commit or "no commit")[:12] + (" with local changes" if report.has_local_changes else "")
    return (
        f"{machine['cores']} x {machine['cpu']}, {machine['kernel']}, {machine['python']}, "
        f"load average {machine['load_average']}\n"
        f"{' '.join(database.values())}; {commit}; {report.taken_at:%Y-%m-%d %H:%M} UTC"
    )


def _describe_start(start: StartResult) -> str:
    return (
        f"start to /readyz 200: first {start.first_seconds:.1f} s, later {start.second_seconds:.1f} s (target 5)"
        f" · stop: {start.stop_seconds:.1f} s (target 10)"
    )


def _tabulate_ping(results: Sequence[LoadResult]) -> str:
    head = ("session.ping", "messages/s", "p50 ms", "p95", "p99", "web CPU-µs", "target", "load gen.", "others")
    rows = [
        (
            f"{result.connections} x {result.in_flight} in flight{_name_level(result)}",
            f"{result.median.per_second:,.0f}",
            *_format_latencies(result),
            _format_us(result, "web"),
            _get_ping_target(result, results),
            *_format_shares(result),
        )
        for result in results
    ]
    return _align([head, *rows])


def _name_level(result: LoadResult) -> str:
    return "" if result.level is Level.STANDARD else f", {result.level}"


def _get_ping_target(result: LoadResult, results: Sequence[LoadResult]) -> str:
    """At a higher level: what it may take above the level below it."""
    below, extra = LEVEL_TARGETS_US.get(result.level, (None, 0))
    if below is None:
        return str(PING_TARGETS_US.get((result.connections, result.in_flight), ""))
    shape = (result.connections, result.in_flight, below)
    base = next((other for other in results if (other.connections, other.in_flight, other.level) == shape), None)
    if base is None or "web" not in base.median.cpu_us:
        return f"+ {extra}"
    return f"{base.median.cpu_us['web'] + extra:.0f} (+ {extra})"


def _tabulate_execute(results: Sequence[LoadResult]) -> str:
    head = (
        "tools.execute",
        "calls/s",
        "p50 ms",
        "p95",
        "p99",
        "CPU-ms: web",
        "worker",
        "valkey",
        "all",
        "load gen.",
        "others",
    )
    rows = []
    for result in results:
        cpu_us = result.median.cpu_us
        web, worker, valkey = (cpu_us.get("web", 0.0), sum_workers(cpu_us), cpu_us.get("valkey", 0.0))
        rows.append(
            (
                f"{result.connections} connections",
                f"{result.median.per_second:,.0f}",
                *_format_latencies(result),
                *(f"{us / 1000:.2f}" if cpu_us else "-" for us in (web, worker, valkey, web + worker + valkey)),
                *_format_shares(result),
            )
        )
    return (
        _align([head, *rows]) + "\n(targets: 150 calls/s, 10 CPU-ms for web and worker, p50 15, p95 40, idle machine)"
    )


def _tabulate_memory(memory: MemoryResult) -> str:
    head = ("memory (PSS), MB", *memory.started, "all")
    rows = [
        (name, *(f"{row[part] / 1e6:.0f}" for part in memory.started), f"{sum(row.values()) / 1e6:.0f}")
        for name, row in (
            ("started, idle", memory.started),
            ("after the load", memory.used),
            (f"with {memory.connections:,} idle connections", memory.connected),
        )
    ]
    each = f"{memory.per_connection_bytes / 1000:.1f} KB each connection (target 60); all idle: target 450 MB"
    return _align([head, *rows]) + f"\n{each}"


def _tabulate_lists(lists: ListsResult) -> str:
    head = (f"{lists.rows:,} runs, ms", "median", "worst", "analysed", "worst", "queries", f"with {lists.rows_small:,}")
    rows = [
        (
            result.name,
            *(
                f"{value:.0f}"
                for times in (result.without_statistics, result.with_statistics)
                for value in (times.median_ms, times.worst_ms)
            ),
            str(result.queries),
            str(result.queries_small),
        )
        for result in lists.questions
    ]
    return _align([head, *rows]) + f"\n(target: {LIST_TARGET_MS} ms, and no more queries than with few runs)"


def _tabulate_profile(profile: Profile) -> str:
    title = (
        f"where {profile.part} spends it: {profile.workload}, {profile.connections} x {profile.in_flight} in flight "
        f"(CPU-µs an answer: {profile.measured_us:.0f}; {profile.overhead_us:.2f} a call were the profiler's)"
    )
    total = max(profile.measured_us, 1e-9)
    lines = []
    for kind, costs in (("group", profile.groups), ("function, itself", profile.functions)):
        head = (kind, "CPU-µs", "share", "calls")
        shown = [
            (cost.name, f"{cost.us:.1f}", f"{cost.us / total:.0%}", f"{cost.calls:.1f}")
            for cost in costs[:SHOWN_COSTS]
            if cost.us / total >= 0.005
        ]
        lines.append(_align([head, *shown]))
    return "\n".join([title, *lines])


def _format_latencies(result: LoadResult) -> Iterator[str]:
    for name in ("p50", "p95", "p99"):
        value = result.median.latencies_ms.get(name)
        yield "-" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _format_shares(result: LoadResult) -> Iterator[str]:
    """What the generator and everything else on the machine took of a core."""
    yield f"{result.median.load_share:.0%}"
    yield f"{result.median.others_share:.0%}"


def _format_us(result: LoadResult, part: str) -> str:
    value = result.median.cpu_us.get(part)
    return "-" if value is None else f"{value:.1f}"


def _align(rows: Sequence[Sequence[str]]) -> str:
    """Columns: the first to the left, the others to the right."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
