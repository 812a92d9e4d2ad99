"""The benchmarks, in the smallest configuration: they measure something, say of what, and leave nothing running."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from tests.services import PROJECT_ROOT, Product, list_running, wait_until

PNG = b"\x89PNG\r\n\x1a\n"
SHORT = ("--seconds", "0.3", "--warm-up", "0.1", "--repeat", "1")
FEW = ("--connections", "2", "--idle-connections", "5")


def run_benchmarks(*arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    few = () if "security" in arguments else FEW
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments, *SHORT, *few, "--output", str(folder / "result.json")],
        cwd=PROJECT_ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), **variables},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def read_result(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def find_processes_of(folder: Path) -> list[psutil.Process]:
    """Processes whose files lie in the folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(folder) in value for value in process.environ().values()):
                found.append(process)
        except psutil.Error:
            continue
    return list_running(found)


def assert_load(load: dict[str, Any], *, connections: int, in_flight: int) -> None:
    assert (load["connections"], load["in_flight"]) == (connections, in_flight)
    assert load["errors"] == {}
    assert load["answers"] > 0
    assert len(load["repeats"]) == 1
    figures = load["median"]
    assert figures["per_second"] > 0
    assert figures["load_share"] > 0
    latencies = figures["latencies_ms"]
    assert 0 < latencies["p50"] <= latencies["p95"] <= latencies["p99"] <= latencies["max"]


def test_they_measure_a_product_of_their_own_and_leave_nothing_running(tmp_path: Path) -> None:
    run = run_benchmarks("ping", "execute", "memory", folder=tmp_path)
    assert run.returncode == 0, run.stderr + run.stdout
    assert find_processes_of(tmp_path) == []
    assert not list(tmp_path.glob("mcp-benchmark-*")), "its data folder is left"

    result = read_result(tmp_path)
    assert result["machine"]["cores"] == os.cpu_count()
    assert result["versions"]["uvicorn"]
    assert result["settings"]["MCP_TASK_WORKERS"] == "2"
    assert result["database"]["engine"] == "SQLite"
    assert len(result["commit"] or "0" * 40) == 40

    one, many, high, critical = result["ping"]
    assert_load(one, connections=2, in_flight=1)
    assert [load["level"] for load in result["ping"]] == ["standard", "standard", "high", "critical"]
    for load in (many, high, critical):
        assert_load(load, connections=1, in_flight=32)
    (execute,) = result["execute"]
    assert_load(execute, connections=2, in_flight=1)
    assert set(execute["median"]["cpu_us"]) >= {"web", "worker", "pool", "valkey", "load"}

    memory = result["memory"]
    assert memory["connections"] == 5
    for state in ("started", "used", "connected"):
        assert all(size > 1_000_000 for size in memory[state].values())

    assert (tmp_path / "result.png").read_bytes().startswith(PNG)
    for shown in ("session.ping", "tools.execute", "2 connections", "KB each connection"):
        assert shown in run.stdout


def test_they_ask_for_lists_of_a_database_that_they_fill(tmp_path: Path) -> None:
    some = "REST runs, large agent: (first|deep) page$|REST runs, who sees all: rare tool$|console (runs|audit): plain"
    run = run_benchmarks("lists", "--rows", "2000", "--only", some, folder=tmp_path)
    assert run.returncode == 0, run.stderr + run.stdout
    assert find_processes_of(tmp_path) == []
    result = read_result(tmp_path)
    lists = result["lists"]
    assert (lists["rows"], lists["errors"]) == (2000, {})
    assert len(lists["questions"]) == 5
    for question in lists["questions"]:
        assert question["queries"] == question["queries_small"] > 0
        for kind in ("without_statistics", "with_statistics"):
            assert 0 < question[kind]["median_ms"] <= question[kind]["worst_ms"]
        assert question["name"] in run.stdout
    assert not (tmp_path / "result.png").exists()


def test_they_measure_a_server_that_runs_already(product: Product, tmp_path: Path) -> None:
    assert product.process is not None
    run = run_benchmarks(
        "ping",
        "--url",
        product.websocket_url,
        "--pid",
        str(product.process.pid),
        folder=tmp_path,
        MCP_API_KEY=product.agent_api_key,
    )
    assert run.returncode == 0, run.stderr
    result = read_result(tmp_path)
    assert_load(result["ping"][0], connections=2, in_flight=1)
    assert "web" in result["ping"][0]["median"]["cpu_us"]
    assert product.get("healthz")[0] == 200


def test_killed_they_leave_nothing_running(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "ping", "--seconds", "60"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment, stderr=subprocess.DEVNULL) as benchmarks:
        wait_until(lambda: list(tmp_path.glob("mcp-benchmark-*/var/run/serve.json")), seconds=60, what="the product")
        benchmarks.kill()
    wait_until(lambda: not find_processes_of(tmp_path), seconds=30, what="the end of all processes")


def test_a_server_that_refuses_is_one_line(product: Product, tmp_path: Path) -> None:
    run = run_benchmarks("ping", "--url", product.websocket_url, folder=tmp_path, MCP_API_KEY=f"mcp_{'A' * 43}")
    assert run.returncode == 1
    assert "security.authentication_failed" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "result.json").exists()


def test_they_tell_what_each_step_of_security_takes(tmp_path: Path) -> None:
    run = run_benchmarks("security", folder=tmp_path)
    assert run.returncode == 0, run.stderr + run.stdout
    assert find_processes_of(tmp_path) == []
    result = read_result(tmp_path)
    assert result["machine"]["cores"] == os.cpu_count()
    steps = {step["name"]: step["cpu_us"] for step in result["steps"]}
    assert len(steps) == 15
    assert all(0 < cpu_us < 1_000_000 for cpu_us in steps.values())
    assert [load["level"] for load in result["ping"]] == ["standard", "high", "critical"]
    assert (tmp_path / "result.png").read_bytes().startswith(PNG)
    assert all(name in run.stdout for name in steps)
