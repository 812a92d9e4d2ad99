"""``python -m benchmarks.recorded``: what the whole audit record costs a run of a tool.

Two products, each in a folder of its own: as it is, and with recording and sealing replaced by nothing in its processes
(``benchmarks.unrecorded``; no setting of the product does that). Both are asked for the same runs, in turn. Figures:
runs a second, CPU of web, worker, scheduler and Valkey a run, latency; JSON on stdout. It checks that the one recorded
every run and the other nothing of any.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import sys
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from benchmarks.load import Workload
from benchmarks.measure import Load, Target, run_load
from benchmarks.product import PROJECT_ROOT, LoadFailed, Product, ProductError, install_product, wait_until_quiet
from benchmarks.results import LoadResult, describe_machine, list_versions, make_load_result

UNRECORDED: Final = PROJECT_ROOT / "benchmarks" / "unrecorded"
GENERATOR: Final = "load"
"""The part of the figures that is not the product's."""
WAYS: Final[Mapping[str, Mapping[str, str]]] = {"recorded": {}, "unrecorded": {"PYTHONPATH": str(UNRECORDED)}}


def measure(*, load: Load, repeats: int, patience_seconds: float) -> dict[str, LoadResult]:
    """Each way's figures. Only one of the two runs at a time; each is started and stopped for every window.

    Raises:
        LoadFailed, ProductError: something did not work; nothing is left running.
    """
    windows: dict[str, list[Any]] = {way: [] for way in WAYS}
    with install_product(WAYS["recorded"]) as recorded, install_product(WAYS["unrecorded"]) as unrecorded:
        for _ in range(repeats):
            for way, product in (("recorded", recorded), ("unrecorded", unrecorded)):
                product.start()
                wait_until_quiet(seconds=patience_seconds)
                target = Target(url=product.websocket_url, key=product.key, roles=dict(product.find_roles()))
                windows[way].append(run_load(target, load))
                product.stop()
                check_record(product, is_recorded=way == "recorded")
    return {
        way: make_load_result(
            workload=load.workload,
            connections=load.connections,
            in_flight=load.in_flight,
            level=load.level,
            windows=measured,
        )
        for way, measured in windows.items()
    }


def check_record(product: Product, *, is_recorded: bool) -> None:
    """See that what was compared is what it is called.

    Raises:
        ProductError: it is not.
    """
    with sqlite3.connect(product.data_dir / "db.sqlite3") as connection:
        (runs,) = connection.execute("SELECT count(*) FROM tools_execution WHERE finished_at IS NOT NULL").fetchone()
        (ended,) = connection.execute(
            "SELECT count(*) FROM security_auditevent WHERE action = 'execution.ended'"
        ).fetchone()
        (seals,) = connection.execute("SELECT count(*) FROM security_auditseal").fetchone()
    if runs == 0 or ended != (runs if is_recorded else 0) or bool(seals) is not is_recorded:
        raise ProductError(f"{runs} runs have ended; {ended} are on record, {seals} events have seals")


def describe(results: Mapping[str, LoadResult]) -> dict[str, Any]:
    """What is printed; the last part is what the record adds."""
    shown: dict[str, Any] = {}
    for way, result in results.items():
        figures = result.median
        shown[way] = {
            "runs_a_second": round(figures.per_second, 1),
            "cpu_ms_a_run": {part: round(us / 1000, 3) for part, us in figures.cpu_us.items()},
            "cpu_ms_a_run_in_all": round(sum_cpu_ms(result), 3),
            "latency_ms": {name: round(figures.latencies_ms[name], 1) for name in ("p50", "p95")},
            "errors": result.errors,
            "runs_a_second_of_each_repeat": [round(repeat.per_second, 1) for repeat in result.repeats],
        }
    recorded, unrecorded = results["recorded"], results["unrecorded"]
    shown["the_record"] = {
        "cpu_ms_a_run": round(sum_cpu_ms(recorded) - sum_cpu_ms(unrecorded), 3),
        "throughput_ratio": round(recorded.median.per_second / unrecorded.median.per_second, 3),
    }
    return shown


def sum_cpu_ms(result: LoadResult) -> float:
    """The median over the repeats of the CPU time a run of all the product's processes."""
    sums = [sum(us for part, us in repeat.cpu_us.items() if part != GENERATOR) for repeat in result.repeats]
    return statistics.median(sums) / 1000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recorded", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="a window (default %(default)s)")
    parser.add_argument("--warm-up", type=float, default=3.0, help="seconds before it (default %(default)s)")
    parser.add_argument("--repeat", type=int, default=3, help="windows of each (default %(default)s)")
    parser.add_argument("--connections", type=int, default=10, help="clients at once (default %(default)s)")
    parser.add_argument("--patience", type=float, default=10.0, help="seconds to wait for a quiet machine")
    options = parser.parse_args()
    load = Load(
        workload=Workload.EXECUTE,
        connections=options.connections,
        seconds=options.seconds,
        warm_up_seconds=options.warm_up,
    )
    try:
        results = measure(load=load, repeats=options.repeat, patience_seconds=options.patience)
    except (LoadFailed, ProductError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    shown = {"machine": describe_machine(), "versions": list_versions(), **describe(results)}
    print(msgspec.json.format(msgspec.json.encode(shown)).decode())
    return 1 if any(result.errors for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
