"""Points at which a test may have a process killed: one before and one after each commit that matters.

Off unless ``MCP_FAILPOINTS`` is set, which is refused for a server that others can reach. A point is armed by a file of
its name in ``<data_dir>/run/failpoints/``; the first process that comes to it removes the file and dies by SIGKILL.
"""

from __future__ import annotations

import os
import signal
from typing import Final

from django.conf import settings

NAMES: Final = frozenset(
    {
        "accept.before_commit",
        "accept.after_commit",
        "accept.after_send",
        "claim.before_commit",
        "claim.after_commit",
        "run.after_lease",
        "run.after_tool",
        "finish.before_commit",
        "finish.after_commit",
        "cancel.before_commit",
        "cancel.after_commit",
        "recover.before_commit",
        "recover.after_commit",
        "lease.before_commit",
        "lease.after_commit",
        "rewrap.after_commit",
        "rewrap.after_file",
        "rewrap.before_commit",
        "rotate.after_activation",
        "rotate.after_batch",
        "rotate.after_publish",
        "rotate.before_activation",
        "rotate.before_retirement",
        "seal.before_commit",
        "seal.after_commit",
        "sign.before_commit",
        "sign.after_commit",
    }
)
"""Every point that is passed somewhere; ``docs/explanation/executions.md`` says what state each leaves."""


def failpoint(name: str) -> None:
    """Die here if a test armed the point."""
    if not settings.MCP.failpoints:
        return
    try:
        (settings.MCP.data_dir / "run" / "failpoints" / name).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
