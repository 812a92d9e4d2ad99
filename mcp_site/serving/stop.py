"""``python -m mcp_site.serving.stop DATA_DIR``: ask the `serve` of the data folder to stop, and wait until it has.

It needs neither Django nor the settings, so that it works whatever is wrong with them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

from mcp_site.serving.lock import POLL_SECONDS, LockFile, open_lock

WAIT_SECONDS: Final = 60.0


def stop(data_dir: Path) -> str:
    """What was done, for the person who asked."""
    lock = open_lock(data_dir)
    if lock is None or lock.try_lock():
        return "nothing runs here"
    holder = lock.read_holder().pid
    if holder is None:
        sys.exit(f"error: {lock.path} names no process")
    try:
        with contextlib.suppress(ProcessLookupError):
            os.kill(holder, signal.SIGTERM)
    except PermissionError:
        sys.exit(f"error: process {holder} is another user's")
    _wait_until_free(lock, holder)
    return "stopped"


def _wait_until_free(lock: LockFile, holder: int) -> None:
    give_up_at = time.monotonic() + WAIT_SECONDS
    while not lock.try_lock():
        if time.monotonic() >= give_up_at:
            sys.exit(f"error: process {holder} did not stop within {WAIT_SECONDS:g} s")
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    sys.stdout.write(stop(Path(sys.argv[1])) + "\n")
