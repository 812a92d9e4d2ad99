"""Ending with the parent: what a child does so that a parent that is killed leaves nothing running.

Run as a module it does the same for a program that knows nothing of it:
``python -m mcp_site.serving.parent PARENT_PID PROGRAM ARGUMENT…``.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Final

IS_LINUX: Final = sys.platform.startswith("linux")
PR_SET_PDEATHSIG: Final = 1
POLL_SECONDS: Final = 1.0


def end_with_parent(*, parent_pid: int, with_signal: signal.Signals = signal.SIGKILL) -> None:
    """Have this process get the signal when its parent ends; a parent that is gone already ends it now.

    Linux does it by itself, also across ``exec``; elsewhere a thread looks once a second.
    """
    if IS_LINUX:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, int(with_signal), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
    else:
        arguments = (parent_pid, with_signal)
        threading.Thread(target=_poll_parent, args=arguments, daemon=True, name="parent").start()
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), with_signal)


def _poll_parent(parent_pid: int, with_signal: signal.Signals) -> None:
    while os.getppid() == parent_pid:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), with_signal)


def _run_program(parent_pid: int, command: list[str]) -> int:
    """Become the program; where the kernel does not tell of a parent's end, stay and end it."""
    if IS_LINUX:
        end_with_parent(parent_pid=parent_pid, with_signal=signal.SIGTERM)
        os.execv(command[0], command)  # noqa: S606  # a list of our own, no shell
    with subprocess.Popen(command) as program:  # noqa: S603  # as above
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda received, _: program.send_signal(received))
        while program.poll() is None:
            if os.getppid() != parent_pid:
                program.terminate()
            time.sleep(POLL_SECONDS / 10)
        return program.returncode


if __name__ == "__main__":
    sys.exit(_run_program(int(sys.argv[1]), sys.argv[2:]))
