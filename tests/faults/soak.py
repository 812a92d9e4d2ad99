"""``make faults``: many runs over many connections while processes are killed at random; prints what came of it.

Each run is asked for with an idempotency key and asked for again, with the same key, until it was answered. Then the
three promises are checked: nothing accepted is lost, nothing runs twice that may not, nothing is left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from websockets.exceptions import ConnectionClosed

from tests.faults.harness import FaultyProduct
from tests.services import run_product, wait_until

PARTS = ("worker", "web", "scheduler", "valkey")
KINDS = ("again", "once")
LEASE_SECONDS = "5"


@dataclass(kw_only=True)
class Tally:
    """What happened."""

    executions: dict[tuple[str, str], str] = field(default_factory=dict)
    """The run of each (kind, key) that was accepted and answered."""
    kills: Counter[str] = field(default_factory=Counter)
    reconnections: int = 0


async def drive(faulty: FaultyProduct, tally: Tally, keys: list[tuple[str, str]], seconds_each: float) -> None:
    """One connection's runs, one after the other."""
    waiting = list(reversed(keys))
    while waiting:
        async with faulty.open_session() as client:
            try:
                while waiting:
                    kind, key = waiting[-1]
                    command = await faulty.mark(client, kind, key, seconds=seconds_each, idempotency_key=key)
                    answer = (await client.wait_for_answer(command)).terminal
                    if answer.type == "response":
                        tally.executions[kind, key] = answer.result["execution_id"]
                        waiting.pop()
                    else:
                        assert answer.payload["retryable"], answer
                        await asyncio.sleep(0.2)
            except (ConnectionClosed, TimeoutError):
                tally.reconnections += 1


async def kill_at_random(faulty: FaultyProduct, tally: Tally, kills: int, pause: float, seed: int) -> None:
    """Kill one process after the other."""
    chance = random.Random(seed)  # noqa: S311  # repeatable, guards nothing
    while tally.kills.total() < kills:
        await asyncio.sleep(chance.uniform(0.5, 1.5) * pause)
        part = chance.choice(PARTS)
        processes = await asyncio.to_thread(faulty.list_processes, part)
        if processes:
            try:
                chance.choice(processes).kill()
            except psutil.NoSuchProcess:
                continue
            tally.kills[part] += 1


async def soak(faulty: FaultyProduct, *, runs: int, connections: int, kills: int, seed: int) -> list[tuple[str, str]]:
    """Load, kill, check; the rows of the table. The last one says what is wrong."""
    tally = Tally()
    keys = [(KINDS[number % 2], f"{seed}-{number}") for number in range(runs)]
    started = time.monotonic()
    killer = asyncio.create_task(kill_at_random(faulty, tally, kills, 20 / kills, seed))
    shares = [keys[number::connections] for number in range(connections)]
    await asyncio.gather(*(drive(faulty, tally, share, 0.01) for share in shares))
    await killer
    accepted_after = time.monotonic() - started
    states: Counter[tuple[str, str]] = Counter()
    for (kind, _), execution_id in tally.executions.items():
        async with faulty.open_session() as client:
            states[kind, (await faulty.wait_until_over(client, execution_id))["state"]] += 1
    over_after = time.monotonic() - started
    wait_until(lambda: not faulty.list_leftovers(), what="nothing left")
    effects = {kind: [faulty.count_effects(kind, key) for kind_, key in keys if kind_ == kind] for kind in KINDS}
    lost = len(keys) - len(tally.executions) + sum(count for (_, state), count in states.items() if state == "failed")
    lost += sum(count == 0 for count in effects["again"])
    doubled = sum(count > 1 for count in effects["once"])
    allowed = {("again", "succeeded"), ("once", "succeeded"), ("once", "interrupted")}
    return [
        ("runs accepted", f"{len(tally.executions)} of {len(keys)}"),
        ("connections", f"{connections}, {tally.reconnections} made again"),
        ("processes killed", ", ".join(f"{part} {count}" for part, count in sorted(tally.kills.items()))),
        ("all accepted after", f"{accepted_after:.1f} s"),
        ("all over after", f"{over_after:.1f} s"),
        *((f"{kind}: {state}", str(count)) for (kind, state), count in sorted(states.items())),
        ("effects of idempotent runs", str(sum(effects["again"]))),
        ("effects of others", str(sum(effects["once"]))),
        ("lost", str(lost)),
        ("doubled where forbidden", str(doubled)),
        ("verdict", "good" if not (lost or doubled) and states.keys() <= allowed else "BAD"),
    ]


def main() -> int:
    """The command line. The exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    options = parser.parse_args()
    print(f"seed {options.seed}")  # noqa: T201  # a command's output
    with tempfile.TemporaryDirectory(prefix="mcp-soak-") as folder:
        variables = {"MCP_APPS": "tests.fault_tools", "MCP_WORKER_LEASE_SECONDS": LEASE_SECONDS}
        with run_product(Path(folder) / "var", **variables) as product:
            faulty = FaultyProduct(product=product, trace_dir=Path(folder) / "traces")
            rows = asyncio.run(
                soak(
                    faulty,
                    runs=options.runs,
                    connections=options.connections,
                    kills=options.kills,
                    seed=options.seed,
                )
            )
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")  # noqa: T201  # a command's output
    return 0 if rows[-1][1] == "good" else 1


if __name__ == "__main__":
    sys.exit(main())
