"""Stopping while tools run: what can finish in time is answered, what cannot is cut off; the stop is bounded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services import PROJECT_ROOT, STOP_SECONDS, Product, list_running, run_product, wait_until

DRAIN_SECONDS = 4
"""``MCP_DRAIN_SECONDS``; all is over within two more."""
APP = '''
import pathlib, time
from tools.authoring import tool

@tool(name="slow.wait", timeout_seconds=60)
def wait(seconds: float, mark: str) -> str:
    """Leave a mark, then wait."""
    pathlib.Path(mark).touch()
    time.sleep(seconds)
    return "waited"
'''


@pytest.fixture
def slow_product(tmp_path: Path) -> Iterator[Product]:
    """A product with a tool that takes its time."""
    (tmp_path / "slow_tools").mkdir()
    (tmp_path / "slow_tools" / "__init__.py").touch()
    (tmp_path / "slow_tools" / "mcp_tools.py").write_text(APP)
    with run_product(
        tmp_path / "var", MCP_APPS="slow_tools", PYTHONPATH=str(tmp_path), MCP_DRAIN_SECONDS=str(DRAIN_SECONDS)
    ) as product:
        yield product


def call(product: Product, *, seconds: float) -> subprocess.Popen[str]:
    """Call the tool from the command line and return once it runs."""
    mark = product.data_dir.parent / f"mark-{seconds}"
    process = subprocess.Popen(
        [sys.executable, "manage.py", "call", "slow.wait", "--input", f'{{"seconds": {seconds}, "mark": "{mark}"}}'],
        cwd=PROJECT_ROOT,
        env=product.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until(mark.exists, what="the tool's start")
    return process


def test_a_short_run_finishes_and_a_long_one_does_not_hold_up_the_stop(slow_product: Product) -> None:
    processes = slow_product.list_processes()
    with call(slow_product, seconds=2) as short, call(slow_product, seconds=50) as long:
        try:
            assert slow_product.stop() < DRAIN_SECONDS + 2
            assert list_running(processes) == []
            output, _ = short.communicate(timeout=STOP_SECONDS)
            assert "waited" in output
            # The worker handed it back: it may not be run twice, so that is its end.
            output, _ = long.communicate(timeout=STOP_SECONDS)
            assert "tool.interrupted" in output
        finally:
            for process in (short, long):
                process.kill()
