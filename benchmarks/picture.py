"""A report as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.results import LoadResult, MemoryResult, Report, StartResult
from benchmarks.sealing import Level
from benchmarks.tables import PING_TARGETS_US, sum_workers

PANEL_INCHES: Final = (4.6, 3.4)
DOTS_PER_INCH: Final = 110
BLUE, ORANGE, GREEN, GREY, RED = "#3b6fb6", "#e08a3c", "#4c9a6a", "#8a8f98", "#b8433c"
PART_COLOURS: Final = {"web": BLUE, "worker": ORANGE, "valkey": GREEN}


def draw_report(report: Report, *, path: Path) -> None:
    """Write the picture; its kind is by the file's ending."""
    mpl.use("agg")
    panels: list[Callable[[Axes], None]] = []
    if report.ping:
        panels.append(lambda axes: _draw_ping(axes, report.ping))
    if report.execute:
        panels.append(lambda axes: _draw_calls(axes, report.execute))
        panels.append(lambda axes: _draw_call_costs(axes, report.execute))
    if report.memory is not None:
        memory = report.memory
        panels.append(lambda axes: _draw_memory(axes, memory))
    if report.start is not None:
        start = report.start
        panels.append(lambda axes: _draw_start(axes, start))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows + 0.5), squeeze=False
    )
    axes_list = [axes for row in grid for axes in row]
    for axes, draw in zip(axes_list, panels, strict=False):
        draw(axes)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in axes_list[len(panels) :]:
        axes.set_visible(False)
    figure.suptitle(_make_title(report), fontsize=9, color=GREY)
    figure.tight_layout()
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)


def _make_title(report: Report) -> str:
    machine = report.machine
    return (
        f"{machine['cores']} x {machine['cpu']}, {machine['python']}, "
        f"{report.database['engine']} · commit {(report.commit or 'none')[:12]} · {report.taken_at:%Y-%m-%d}"
    )


def _draw_ping(axes: Axes, results: Sequence[LoadResult]) -> None:
    names = [
        f"{result.connections} x {result.in_flight}\n{'in flight' if result.level is Level.STANDARD else result.level}"
        for result in results
    ]
    values = [result.median.cpu_us.get("web", 0.0) for result in results]
    bars = axes.bar(names, values, color=BLUE, width=0.6)
    axes.bar_label(
        bars,
        [f"{value:.0f} µs\n{result.median.per_second:,.0f}/s" for value, result in zip(values, results, strict=True)],
        fontsize=8,
        padding=2,
    )
    for position, result in enumerate(results):
        target = PING_TARGETS_US.get((result.connections, result.in_flight))
        if target is not None and result.level is Level.STANDARD:
            axes.hlines(target, position - 0.4, position + 0.4, color=RED, linestyle="--")
            axes.text(position, target, "target", color=RED, fontsize=7, ha="center", va="bottom")
    axes.set_ylim(0, max([*values, *PING_TARGETS_US.values()]) * 1.25)
    axes.set_ylabel("CPU-µs of the web process")
    axes.set_title("session.ping, for each message", fontsize=10)


def _draw_calls(axes: Axes, results: Sequence[LoadResult]) -> None:
    names = [str(result.connections) for result in results]
    bars = axes.bar(names, [result.median.per_second for result in results], color=BLUE, width=0.6)
    axes.bar_label(bars, fmt="%.0f/s", fontsize=8, padding=2)
    axes.set_xlabel("connections, one call in flight each")
    axes.set_ylabel("calls a second")
    axes.set_title("tools.execute: throughput and latency", fontsize=10)
    latency = axes.twinx()
    for name, style in (("p50", "-"), ("p95", "--"), ("p99", ":")):
        values = [result.median.latencies_ms.get(name, float("nan")) for result in results]
        latency.plot(names, values, style, color=ORANGE, marker="o", markersize=3, label=name)
    latency.set_yscale("log")
    latency.set_ylabel("ms")
    latency.legend(fontsize=7, frameon=False, loc="upper left")
    latency.spines["top"].set_visible(False)
    axes.margins(y=0.15)


def _draw_call_costs(axes: Axes, results: Sequence[LoadResult]) -> None:
    names = [str(result.connections) for result in results]
    below = [0.0] * len(results)
    for part, colour in PART_COLOURS.items():
        cpu_us = [result.median.cpu_us for result in results]
        values = [(sum_workers(row) if part == "worker" else row.get(part, 0.0)) / 1000 for row in cpu_us]
        axes.bar(names, values, bottom=below, color=colour, width=0.6, label=part)
        below = [total + value for total, value in zip(below, values, strict=True)]
    for position, total in enumerate(below):
        axes.text(position, total, f"{total:.1f}", fontsize=8, ha="center", va="bottom")
    axes.set_xlabel("connections")
    axes.set_ylabel("CPU-ms")
    axes.set_title("tools.execute, for each call", fontsize=10)
    axes.margins(y=0.3)
    axes.legend(fontsize=7, frameon=False, ncols=len(PART_COLOURS), loc="upper center")


def _draw_memory(axes: Axes, memory: MemoryResult) -> None:
    rows = (
        ("started", memory.started),
        ("after\nthe load", memory.used),
        (f"{memory.connections:,} idle\nconnections", memory.connected),
    )
    below = [0.0] * len(rows)
    colours = (GREY, GREEN, ORANGE, "#f0c08a", "#9d7cc0", BLUE)
    for part, colour in zip(memory.started, colours, strict=False):
        values = [row[part] / 1e6 for _, row in rows]
        axes.bar([name for name, _ in rows], values, bottom=below, color=colour, width=0.6, label=part)
        below = [total + value for total, value in zip(below, values, strict=True)]
    for position, total in enumerate(below):
        axes.text(position, total, f"{total:.0f} MB", fontsize=8, ha="center", va="bottom")
    axes.set_ylabel("MB (PSS)")
    axes.set_title(f"memory: {memory.per_connection_bytes / 1000:.0f} KB a connection", fontsize=10)
    axes.margins(y=0.35)
    axes.legend(fontsize=7, frameon=False, ncols=3, loc="upper center")


def _draw_start(axes: Axes, start: StartResult) -> None:
    names = ("first start", "later start", "stop")
    bars = axes.bar(names, (start.first_seconds, start.second_seconds, start.stop_seconds), color=BLUE, width=0.6)
    axes.bar_label(bars, fmt="%.1f s", fontsize=8, padding=2)
    axes.set_ylabel("seconds")
    axes.set_title("from `serve` to /readyz 200, and back", fontsize=10)
    axes.margins(y=0.15)
