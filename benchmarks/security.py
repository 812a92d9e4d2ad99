"""``python -m benchmarks security``: what security takes of each message, in CPU-µs.

First each step by itself, in this process, with a database (SQLite) and a Valkey of its own; CPU is that of the whole
process, so that a limiter's leases are in it. Every answer is checked. Then whole pings of a product of its own at the
levels ``standard``, ``high`` and ``critical``: the CPU of its web process. Figures: JSON, a picture, and a table.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import matplotlib.pyplot as plt
import msgspec

from benchmarks.load import Workload
from benchmarks.measure import SEALED_LOAD, Load, Target, measure_loads
from benchmarks.picture import BLUE, DOTS_PER_INCH, GREY, ORANGE
from benchmarks.product import PROJECT_ROOT, LoadFailed, ProductError, install_product, wait_until_quiet
from benchmarks.results import LoadResult, describe_machine, get_now, list_versions, read_commit
from benchmarks.sealing import Level
from benchmarks.security_steps import Step, open_steps

RESULT: Final = PROJECT_ROOT / "benchmarks" / "results" / "local" / "security.json"


class StepResult(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    cpu_us: float
    """The median of the windows."""
    windows_us: list[float]
    acts: int


class SecurityReport(msgspec.Struct, frozen=True, kw_only=True):
    command: str
    taken_at: datetime
    machine: dict[str, Any]
    versions: dict[str, str]
    commit: str | None
    has_local_changes: bool | None
    steps: list[StepResult]
    ping: list[LoadResult]


class AnswerWrong(Exception):
    """A step did not come to what it has to come to."""


def measure_steps(steps: Sequence[Step], *, seconds: float, repeats: int, patience: float) -> list[StepResult]:
    """Each step in so many windows, all of them in turn.

    Raises:
        AnswerWrong: one did not come to what it has to.
    """
    windows: dict[str, list[float]] = {step.name: [] for step in steps}
    acts = dict.fromkeys(windows, 0)
    for _ in range(repeats):
        for step in steps:
            wait_until_quiet(seconds=patience)
            done, cpu = measure_window(step, seconds=seconds)
            windows[step.name].append(cpu / done * 1e6)
            acts[step.name] += done
    return [
        StepResult(name=name, cpu_us=statistics.median(found), windows_us=found, acts=acts[name])
        for name, found in windows.items()
    ]


def measure_window(step: Step, *, seconds: float) -> tuple[int, float]:
    """How often it was done, and the CPU seconds that it took."""
    act, done, cpu = step.act, 0, 0.0
    for given in step.prepare():
        act(given)
    give_up_at = time.perf_counter() + seconds
    while not done or time.perf_counter() < give_up_at:
        batch = step.prepare()
        began = time.process_time()
        answers = [act(given) for given in batch]
        cpu += time.process_time() - began
        done += len(batch)
        if not all(map(step.is_right, answers)):
            raise AnswerWrong(step.name)
    return done, cpu


def measure_pings(*, seconds: float, warm_up: float, repeats: int, patience: float) -> list[LoadResult]:
    """Whole pings at each level, of a product that is started for it.

    Raises:
        LoadFailed, ProductError: something did not work; nothing is left running.
    """
    connections, in_flight = SEALED_LOAD
    with install_product({}) as product:
        product.start()
        seed = product.register_signing_key()
        target = Target(url=product.websocket_url, key=product.key, roles=dict(product.find_roles()), signing_seed=seed)
        loads = [
            Load(
                workload=Workload.PING,
                connections=connections,
                in_flight=in_flight,
                level=level,
                seconds=seconds,
                warm_up_seconds=warm_up,
            )
            for level in Level
        ]
        results = measure_loads(target, loads, repeats=repeats, patience_seconds=patience)
        product.stop()
    return results


def list_figures(report: SecurityReport) -> list[tuple[str, float]]:
    """What each step and each whole ping takes, in CPU-µs."""
    return [
        *((step.name, step.cpu_us) for step in report.steps),
        *((f"a whole ping at {result.level.value}", result.median.cpu_us["web"]) for result in report.ping),
    ]


def draw(report: SecurityReport, *, path: Path) -> None:
    """The figures as bars, on a scale of powers of ten."""
    mpl.use("agg")
    figures = list_figures(report)[::-1]
    figure, axes = plt.subplots(figsize=(9, 0.34 * len(figures) + 1.2))
    bars = axes.barh(
        [name for name, _ in figures],
        [value for _, value in figures],
        color=[ORANGE if name.startswith("a whole ping") else BLUE for name, _ in figures],
    )
    axes.bar_label(bars, labels=[f"{value:.3g}" for _, value in figures], padding=3, fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("CPU-µs")
    axes.spines[["top", "right"]].set_visible(False)
    machine = report.machine
    figure.suptitle(
        f"{machine['cores']} x {machine['cpu']}, {machine['python']} · commit {(report.commit or 'none')[:12]} · "
        f"{report.taken_at:%Y-%m-%d}",
        fontsize=9,
        color=GREY,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)


def main(arguments: Sequence[str]) -> int:
    """The exit code: 1 where the product failed or an answer was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks security", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each window (default %(default)s)")
    parser.add_argument("--warm-up", type=float, default=2.0, metavar="SECONDS", help="before each window of pings")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="windows of each; shows medians")
    parser.add_argument("--patience", type=float, default=0.0, metavar="SECONDS", help="for the machine to be idle")
    parser.add_argument("--output", type=Path, default=RESULT, help="the JSON file; the picture is laid beside it")
    options = parser.parse_args(arguments)
    commit, has_local_changes = read_commit(PROJECT_ROOT)
    try:
        ping = measure_pings(
            seconds=options.seconds, warm_up=options.warm_up, repeats=options.repeat, patience=options.patience
        )
        with open_steps() as steps:
            measured = measure_steps(steps, seconds=options.seconds, repeats=options.repeat, patience=options.patience)
    except (AnswerWrong, LoadFailed, ProductError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report = SecurityReport(
        command=shlex.join(["python", "-m", "benchmarks", "security", *arguments]),
        taken_at=get_now(),
        machine=describe_machine(),
        versions=list_versions(),
        commit=commit,
        has_local_changes=has_local_changes,
        steps=measured,
        ping=ping,
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    draw(report, path=options.output.with_suffix(".png"))
    print(*(f"{name}: {value}" for name, value in report.machine.items()), sep="\n")
    print(*(f"{name} {version}" for name, version in report.versions.items()), sep=", ")
    print("\nCPU-µs")
    for name, value in list_figures(report):
        print(f"{value:10.1f}  {name}")
    print(f"\n{options.output}\n{options.output.with_suffix('.png')}")
    return 1 if any(result.errors for result in ping) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
