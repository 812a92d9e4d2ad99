"""A process that is kept alive: started, its output read, started again with growing pauses when it ends by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable
from typing import Final

from mcp_site.serving.output import LineSplitter, Output
from mcp_site.serving.plan import ProcessPlan

FIRST_PAUSE_SECONDS: Final = 0.25
LONGEST_PAUSE_SECONDS: Final = 30.0
STABLE_SECONDS: Final = 30.0
"""A process that lived this long starts again with the first pause."""
CHUNK_BYTES: Final = 64 * 1024


def choose_pause(*, failures: int) -> float:
    """Seconds before the start after so many short lives in a row."""
    return float(min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(failures - 1, 16)))


class Child:
    """One process of the plan. Created, started and stopped on the event loop's thread.

    The thread matters: the kernel ends a child when the *thread* that started it ends.
    """

    def __init__(self, *, plan: ProcessPlan, descriptors: Iterable[int], output: Output) -> None:
        self.plan = plan
        self.failures = 0
        """Short lives in a row."""
        self._descriptors = tuple(descriptors)
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None
        self._exited = asyncio.Event()
        self._write = output.write if plan.is_shown else output.record
        self._is_stopping = False
        self._splitter = LineSplitter()
        self._started_at = 0.0
        self._restart: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start the process."""
        loop = asyncio.get_running_loop()
        self._restart = None
        self._exited.clear()
        self._splitter = LineSplitter()
        self._started_at = loop.time()
        try:
            self._process = subprocess.Popen(  # noqa: S603  # our own plan, no shell
                self.plan.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=self._descriptors,
                # Ctrl-C must reach the supervisor alone, which stops the others in their order.
                start_new_session=True,
            )
        except OSError as error:
            self._exited.set()
            self._start_later(f"cannot be started: {error.strerror}")
            return
        descriptor = self._get_pipe()
        os.set_blocking(descriptor, False)
        loop.add_reader(descriptor, self._read)

    def check(self) -> None:
        """Look whether it has ended; called whenever any child did."""
        if self._process is None or self._process.poll() is None:
            return
        process, lived = self._process, asyncio.get_running_loop().time() - self._started_at
        # What it started in its session must not outlive it.
        self._kill_session(process.pid)
        self._close_pipe()
        self._process = None
        self._exited.set()
        if self._is_stopping:
            return
        if lived >= STABLE_SECONDS:
            self.failures = 0
        self._start_later(_describe_end(process.returncode))

    async def stop(self, *, deadline: float) -> None:
        """Ask it to end and wait; at the deadline (the loop's time) end it."""
        self.forget_restart()
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout_at(deadline):
                await self._exited.wait()
        except TimeoutError:
            self._output.write("serve", f"{self.plan.name} did not end in time; it is killed")
            self.kill()
            await self._exited.wait()

    def kill(self) -> None:
        """End it and all of its session now."""
        self.forget_restart()
        if self._process is not None:
            self._kill_session(self._process.pid)

    def forget_restart(self) -> None:
        """From now on its end is final."""
        self._is_stopping = True
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None

    def _start_later(self, reason: str) -> None:
        self.failures += 1
        pause = choose_pause(failures=self.failures)
        self._output.write("serve", f"{self.plan.name} {reason}; next start in {pause:g} s")
        self._restart = asyncio.get_running_loop().call_later(pause, self.start)

    @staticmethod
    def _kill_session(pid: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)

    def _get_pipe(self) -> int:
        assert self._process is not None and self._process.stdout is not None  # noqa: S101, PT018  # asked for in start
        return self._process.stdout.fileno()

    def _read(self) -> None:
        try:
            chunk = os.read(self._get_pipe(), CHUNK_BYTES)
        except BlockingIOError:
            return
        for line in self._splitter.feed(chunk):
            self._write(self.plan.name, line)
        if not chunk:
            asyncio.get_running_loop().remove_reader(self._get_pipe())

    def _close_pipe(self) -> None:
        """Take what is left in the pipe, without waiting for whoever else may hold its other end."""
        descriptor = self._get_pipe()
        asyncio.get_running_loop().remove_reader(descriptor)
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(descriptor, CHUNK_BYTES):
                for line in self._splitter.feed(chunk):
                    self._write(self.plan.name, line)
        for line in self._splitter.finish():
            self._write(self.plan.name, line)
        assert self._process is not None and self._process.stdout is not None  # noqa: S101, PT018  # asked for in start
        self._process.stdout.close()


def _describe_end(returncode: int) -> str:
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    try:
        return f"was ended by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was ended by signal {-returncode}"
