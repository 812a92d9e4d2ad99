"""A profiler in every Python process that is started with this folder on ``PYTHONPATH``.

Python imports a module of this name by itself at its start. With BENCHMARK_PROFILES naming a folder, the web and
worker processes profile their threads, and so do their forked children. The signal ``MARK`` begins a window, the next
one ends it and leaves there what was counted in between, as ``PID-WINDOW.json``. ``benchmarks.profiles`` makes sense
of the files.

Time is the thread's own CPU time, so that one that waits costs nothing. Reading that clock costs four times as much as
reading the common one, which BENCHMARK_PROFILE_CLOCK=wall takes for main threads: right where nothing but the event
loop itself ever waits there.
"""

from __future__ import annotations

import cProfile
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

FOLDER = os.environ.get("BENCHMARK_PROFILES", "")
MAIN_CLOCK = os.environ.get("BENCHMARK_PROFILE_CLOCK", "cpu")
PROFILED = ("web", "worker")
"""Parts of ``serve``."""
MARK = signal.SIGRTMIN + 1
"""Neither the product nor its libraries use it; ``benchmarks.load`` sends it."""


class ThreadProfile:
    """One thread's profiler, made and started in that thread."""

    def __init__(self, *, clock: str) -> None:
        self.clock = clock
        self._thread = threading.get_native_id()
        self.profile = cProfile.Profile() if clock == "wall" else cProfile.Profile(time.thread_time)
        self.profile.enable()

    def read_cpu_seconds(self) -> float:
        """What the thread has used; 0 of one that ended."""
        try:
            return int(Path(f"/proc/self/task/{self._thread}/schedstat").read_text().split()[0]) / 1e9
        except (FileNotFoundError, ProcessLookupError):
            return 0.0


class Recorder:
    """The profiles of one process, a thread each."""

    def __init__(self) -> None:
        self._windows = 0
        self._threads: list[ThreadProfile] = []
        self._begun: list[tuple[float, list[Any]]] | None = None

    def start(self) -> None:
        """Profile the calling thread, which is the main one, and all that are started from now on."""
        self._threads.append(ThreadProfile(clock=MAIN_CLOCK))
        threading.setprofile(self._take_thread)
        signal.signal(MARK, self._mark)
        os.register_at_fork(after_in_child=self._start_anew)

    def _take_thread(self, _frame: FrameType, _event: str, _argument: Any) -> None:
        """Called at a new thread's first call; it puts the profiler in its own place."""
        sys.setprofile(None)
        self._threads.append(ThreadProfile(clock="cpu"))

    def _start_anew(self) -> None:
        sys.setprofile(None)
        self._threads.clear()
        self._windows, self._begun = 0, None
        self._threads.append(ThreadProfile(clock=MAIN_CLOCK))

    def _mark(self, _number: int, _frame: FrameType | None) -> None:
        # What is done here is to be in no window.
        own = self._threads[0].profile
        if self._begun is None:
            own.disable()
            statistics = [thread.profile.getstats() for thread in self._threads]
            cpu_seconds = [thread.read_cpu_seconds() for thread in self._threads]
            self._begun = list(zip(cpu_seconds, statistics, strict=True))
            own.enable()
            return
        cpu_seconds = [thread.read_cpu_seconds() for thread in self._threads]
        own.disable()
        statistics = [thread.profile.getstats() for thread in self._threads]
        self._write(self._begun, list(zip(cpu_seconds, statistics, strict=True)))
        self._begun = None
        own.enable()

    def _write(self, begun: list[tuple[float, list[Any]]], ended: list[tuple[float, list[Any]]]) -> None:
        # A thread that was started within the window has no beginning.
        begun = begun + [(0.0, [])] * (len(ended) - len(begun))
        content = [
            {
                "clock": thread.clock,
                "cpu_seconds": after[0] - before[0],
                "begun": [describe_entry(entry) for entry in before[1]],
                "ended": [describe_entry(entry) for entry in after[1]],
            }
            for thread, before, after in zip(self._threads, begun, ended, strict=True)
        ]
        self._windows += 1
        path = Path(FOLDER) / f"{os.getpid()}-{self._windows}.json"
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(content))
        draft.replace(path)


def describe_entry(entry: Any) -> dict[str, Any]:
    """One function: its calls, its own seconds, and the same for each that it called."""
    return {
        "function": name_code(entry.code),
        "calls": entry.callcount,
        "seconds": entry.inlinetime,
        "callees": [[name_code(callee.code), callee.callcount, callee.inlinetime] for callee in entry.calls or ()],
    }


def name_code(code: CodeType | str) -> str:
    """``FILE:LINE:NAME``, or the text by which the profiler names a function in C, without its address."""
    if isinstance(code, str):
        return code.partition(" at 0x")[0]
    return f"{code.co_filename}:{code.co_firstlineno}:{code.co_name}"


if FOLDER and "serve" in sys.orig_argv and any(part in sys.orig_argv for part in PROFILED):
    Recorder().start()
