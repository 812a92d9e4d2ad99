"""``python -m mcp_site.serving.reset DATA_DIR``: delete all state, after asking, and never under a running server.

It needs neither Django nor the settings, so that it works whatever is wrong with them.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from mcp_site.serving.lock import open_lock


def reset(data_dir: Path) -> str:
    """What was done, for the person who asked."""
    lock = open_lock(data_dir)
    if lock is None and not (data_dir / "secrets").is_dir():
        return f"there is no state in {data_dir}"
    if lock is not None and not lock.try_lock():
        sys.exit("error: it is running; `make stop` first")
    sys.stdout.write(f"Delete {data_dir} with its database, accounts, keys, runs and logs? Type yes: ")
    sys.stdout.flush()
    if sys.stdin.readline().strip() != "yes":
        sys.exit("nothing was deleted")
    shutil.rmtree(data_dir)
    return f"deleted {data_dir}"


if __name__ == "__main__":
    sys.stdout.write(reset(Path(sys.argv[1])) + "\n")
