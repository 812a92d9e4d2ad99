"""``make fuzz``: so many mutated frames on a product of its own, and a table of what came of it."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults.fuzz.campaign import PRODUCT_VARIABLES, Campaign, Report
from tests.services import run_product


def main() -> int:
    """The command line. The exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)  # noqa: T201  # a command's output
    with (
        tempfile.TemporaryDirectory(prefix="mcp-fuzz-") as folder,
        run_product(Path(folder) / "var", **PRODUCT_VARIABLES) as product,
    ):
        report = asyncio.run(Campaign(product=product, frames=options.frames, seed=options.seed).run())
    rows = describe(report)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")  # noqa: T201  # a command's output
    for finding in report.tally.findings:
        print(f"FOUND {finding}")  # noqa: T201  # a command's output
    return 1 if report.tally.findings else 0


def describe(report: Report) -> list[tuple[str, str]]:
    """The rows of the table."""
    tally = report.tally
    rows = [
        ("frames, requests", f"{report.frames}, {report.requests} in {report.seconds:.0f} s"),
        ("made from", f"{len(tally.kinds)} kinds of messages and requests"),
        ("mutations", show(tally.sent, 12)),
        ("answers", show(tally.answers, 60)),
        ("closes", show(tally.closes, 20)),
        (
            "bystander's pings",
            f"{len(report.pings_seconds)}, "
            + ", ".join(
                f"p{share * 100:g} {report.get_ping_seconds(share) * 1000:.1f} ms" for share in (0.5, 0.95, 1.0)
            ),
        ),
    ]
    if report.before is not None and report.after is not None:
        rows += [
            (
                "web process, PSS",
                f"{report.before.memory_bytes / 1e6:.1f} MB, then {report.after.memory_bytes / 1e6:.1f} MB",
            ),
            ("its open files", f"{report.before.descriptors}, then {report.after.descriptors}"),
        ]
    rows.append(("stopped meanwhile", f"in {report.stop_seconds:.1f} s"))
    return [*rows, ("verdict", "BAD" if tally.findings else "good")]


def show(counts: Counter[str], most: int) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common(most))


if __name__ == "__main__":
    sys.exit(main())
