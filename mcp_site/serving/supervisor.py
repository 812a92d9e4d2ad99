"""The supervisor: ``python -m mcp_site.serving.supervisor PLAN``, which `serve` becomes once all is prepared.

It starts the plan's processes, says when they are ready, starts again what ends, and stops them in order. It imports
neither Django nor the settings, so that it stays small.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from mcp_site.errors import StartRefused
from mcp_site.known_secrets import make_environment_redactor
from mcp_site.serving.children import Child
from mcp_site.serving.output import Output
from mcp_site.serving.plan import RUN_FILE, Plan, ProcessPlan, read_plan
from mcp_site.serving.probes import can_reach_broker, read_readiness

READY_SECONDS: Final = 90.0
POLL_SECONDS: Final = 0.05
MAX_FAILURES_AT_START: Final = 3
STAGE_SECONDS: Final = 0.5
"""What each stage after the first has beyond the drain before it is killed."""


class RunFile(msgspec.Struct, frozen=True, kw_only=True):
    """``<data_dir>/run/serve.json``, there while the product is ready: for ``make stop``, tests and tools."""

    pid: int
    url: str
    websocket_url: str
    started_at: datetime


class Supervisor:
    """Keeps a plan's processes. One a process."""

    def __init__(self, *, plan: Plan, output: Output) -> None:
        self._plan = plan
        self._output = output
        self._stop_requested = asyncio.Event()
        self._broker = self._make_child(plan.broker.process) if plan.broker else None
        self._children = [self._make_child(process) for process in plan.processes]
        self._run_file = Path(plan.data_dir) / "run" / RUN_FILE

    async def run(self) -> int:
        """Start everything, keep it until a signal, stop everything. The exit code."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._check_children)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._request_stop)
        exit_code = 0
        try:
            if await self._start():
                await self._stop_requested.wait()
        except StartRefused as error:
            self._output.write("serve", f"error: {error}")
            exit_code = error.exit_code
        finally:
            self._run_file.unlink(missing_ok=True)
            await self._stop()
        return exit_code

    async def _start(self) -> bool:
        """Whether all is ready; false when a stop was asked for meanwhile."""
        start = asyncio.create_task(self._start_processes())
        stop = asyncio.create_task(self._stop_requested.wait())
        try:
            await asyncio.wait({start, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not start.done():
                return False
            start.result()
            return True
        finally:
            for task in (start, stop):
                task.cancel()

    async def _start_processes(self) -> None:
        if self._broker is not None and self._plan.broker is not None:
            self._broker.start()
            await self._wait_for_broker(self._plan.broker.socket)
        for child in self._children:
            child.start()
        await self._wait_until_ready()
        self._write_run_file()
        self._print_banner()

    async def _wait_for_broker(self, socket: str) -> None:
        async with _time_limit("the embedded Valkey did not answer"):
            while not await can_reach_broker(socket):
                self._refuse_failing_children()
                await asyncio.sleep(POLL_SECONDS / 5)

    async def _wait_until_ready(self) -> None:
        async with _time_limit("the processes did not become ready") as limit:
            while not (readiness := await read_readiness(self._plan.address)).is_ready:
                limit.reason = readiness.reason
                self._refuse_failing_children()
                await asyncio.sleep(POLL_SECONDS)

    def _refuse_failing_children(self) -> None:
        for child in self._every_child():
            if child.failures >= MAX_FAILURES_AT_START:
                raise StartRefused(f"{child.plan.name} does not start; see {self._get_log_dir()}/{child.plan.name}.log")

    def _write_run_file(self) -> None:
        address = self._plan.address
        content = RunFile(
            pid=os.getpid(), url=address.url, websocket_url=address.websocket_url, started_at=datetime.now(UTC)
        )
        draft = self._run_file.with_suffix(".new")
        draft.write_bytes(msgspec.json.encode(content) + b"\n")
        draft.replace(self._run_file)

    def _print_banner(self) -> None:
        rows = list(self._plan.banner)
        if self._plan.first_run_dir is not None:
            folder = Path(self._plan.first_run_dir)
            rows += [
                ("operator's password", (folder / "operator-password").read_text().strip()),
                ("agent's API key", (folder / "agent-api-key").read_text().strip()),
                ("", f"shown this once; they also lie in {folder}/: delete them when you have them"),
            ]
        width = max(len(name) for name, _ in rows)
        lines = (f"  {name:<{width}}  {text}".rstrip() for name, text in rows)
        self._output.write("serve", f"ready at {self._plan.address.url}")
        self._output.announce("\nMachine Context Protocol server\n" + "\n".join(lines) + "\n\nCtrl-C stops it.\n")

    def _request_stop(self) -> None:
        if self._stop_requested.is_set():
            self._output.write("serve", "stopping now")
            for child in self._every_child():
                child.kill()
            return
        self._stop_requested.set()

    async def _stop(self) -> None:
        self._output.write("serve", "stopping")
        drained_at = asyncio.get_running_loop().time() + self._plan.drain_seconds
        for child in self._every_child():
            child.forget_restart()
        stages = sorted({child.plan.stage for child in self._children})
        for number, stage in enumerate(stages):
            deadline = drained_at + number * STAGE_SECONDS
            await asyncio.gather(
                *(child.stop(deadline=deadline) for child in self._children if child.plan.stage == stage)
            )
        if self._broker is not None:
            await self._broker.stop(deadline=drained_at + len(stages) * STAGE_SECONDS)
            self._remove_socket_folder()
        self._output.write("serve", "stopped")

    def _remove_socket_folder(self) -> None:
        """Where the socket lies in the system's temporary folder, its own folder goes with it."""
        assert self._plan.broker is not None  # noqa: S101  # there is a broker
        folder = Path(self._plan.broker.socket).parent
        if not folder.is_relative_to(self._plan.data_dir):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _check_children(self) -> None:
        for child in self._every_child():
            child.check()

    def _every_child(self) -> Sequence[Child]:
        return [*([self._broker] if self._broker else []), *self._children]

    def _make_child(self, plan: ProcessPlan) -> Child:
        descriptors = [self._plan.lock_descriptor]
        if plan.inherits_listener:
            descriptors.append(self._plan.listener_descriptor)
        return Child(plan=plan, descriptors=descriptors, output=self._output)

    def _get_log_dir(self) -> Path:
        return Path(self._plan.data_dir) / "log"


class _Limit:
    reason = ""


@contextlib.asynccontextmanager
async def _time_limit(failure: str) -> AsyncGenerator[_Limit, None]:
    limit = _Limit()
    try:
        async with asyncio.timeout(READY_SECONDS):
            yield limit
    except TimeoutError:
        reason = f" ({limit.reason})" if limit.reason else ""
        raise StartRefused(f"{failure} within {READY_SECONDS:g} s{reason}") from None


def main(plan_path: str) -> int:
    """Run the plan until a signal. The exit code."""
    plan = read_plan(Path(plan_path))
    output = Output(
        log_dir=Path(plan.data_dir) / "log", console=sys.stdout, redactor=make_environment_redactor(os.environ)
    )
    try:
        return asyncio.run(_run(plan, output))
    finally:
        output.close()


async def _run(plan: Plan, output: Output) -> int:
    return await Supervisor(plan=plan, output=output).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
