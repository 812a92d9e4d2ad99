"""Points at which a test may have a process killed: one before and one after each commit that matters.

Off unless ``MCP_FAILPOINTS`` is set, which a production's settings refuse. ``name`` kills at every hit; ``name@3`` at
the third; several are separated by commas. The names are listed in ``NAMES``; an unknown one stops the start.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import Final

from django.conf import settings

NAMES: Final = frozenset(
    {
        "accept.before_commit",
        "accept.after_commit",
        "accept.after_send",
        "claim.before_commit",
        "claim.after_commit",
        "run.after_tool",
        "finish.before_commit",
        "finish.after_commit",
        "cancel.before_commit",
        "cancel.after_commit",
        "recover.before_commit",
        "recover.after_commit",
    }
)

_hits: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Die here by SIGKILL if a test asked for it."""
    armed = settings.MCP.failpoints
    if not armed:
        return
    _hits[name] += 1
    if name in armed or f"{name}@{_hits[name]}" in armed:
        os.kill(os.getpid(), signal.SIGKILL)
