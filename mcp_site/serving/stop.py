"""``python -m mcp_site.serving.stop DATA_DIR``: ask the `serve` of the data folder to stop, and wait until it has.

It needs neither Django nor the settings, so that it works whatever is wrong with them.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

POLL_SECONDS: Final = 0.05
WAIT_SECONDS: Final = 60.0


def stop(data_dir: Path) -> str:
    """What was done, for the person who asked."""
    try:
        descriptor = os.open(data_dir / "serve.lock", os.O_RDWR)
    except FileNotFoundError:
        return "nothing runs here"
    if _is_free(descriptor):
        return "nothing runs here"
    pid = os.pread(descriptor, 32, 0).decode().partition("\n")[0]
    if not pid.isdecimal():
        sys.exit(f"error: {data_dir / 'serve.lock'} names no process")
    try:
        os.kill(int(pid), signal.SIGTERM)
    except ProcessLookupError:
        pass
    except PermissionError:
        sys.exit(f"error: process {pid} is another user's")
    give_up_at = time.monotonic() + WAIT_SECONDS
    while not _is_free(descriptor):
        if time.monotonic() >= give_up_at:
            sys.exit(f"error: process {pid} did not stop within {WAIT_SECONDS:g} s")
        time.sleep(POLL_SECONDS)
    return "stopped"


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    sys.stdout.write(stop(Path(sys.argv[1])) + "\n")
