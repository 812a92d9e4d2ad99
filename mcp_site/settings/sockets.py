"""Where the embedded broker's Unix socket lies, and how each library names it."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from mcp_site.errors import BadEnvironment

MAX_PATH_BYTES: Final = 100
"""The kernel takes 108 (Linux) or 104 (macOS), with the end mark."""


def choose_broker_socket(data_dir: Path) -> Path:
    """``<data_dir>/run/valkey.sock``; where that is too long for a socket, a folder in the system's temporary one."""
    path = data_dir / "run" / "valkey.sock"
    if len(os.fsencode(path)) <= MAX_PATH_BYTES:
        return path
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"mcp-{os.getuid()}-{digest}"
    _refuse_foreign(folder)
    return folder / "valkey.sock"


def _refuse_foreign(folder: Path) -> None:
    """The temporary folder is everyone's: whoever made this one before us could pose as the broker."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise BadEnvironment(f"MCP_DATA_DIR: its path is long, and {folder} in its place is not this user's alone")


def make_celery_url(redis_url: str) -> str:
    """Celery's name for a Redis URL: it calls a Unix socket ``redis+socket``."""
    return f"redis+socket{redis_url.removeprefix('unix')}" if redis_url.startswith("unix://") else redis_url
