"""What a connection remembers of its traffic: the specification's ``ProtocolState``, kept cheap and bounded."""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

LATENCIES_KEPT = 256
"""How many of the latest answers the percentiles are taken over."""


class Stage(enum.StrEnum):
    """How far a command has come."""

    VALIDATION = "validation"
    RESOLUTION = "resolution"
    PROCESSING = "processing"
    RESPONSE = "response"


@dataclass(slots=True, kw_only=True)
class PendingCommand:
    """A command that has no terminal answer yet."""

    message_id: str
    command: str
    received_at: datetime
    received_tick: float
    """By the monotonic clock, in seconds."""
    stage: Stage = Stage.VALIDATION
    repeats: int = 0
    """How often the client sent it again meanwhile; each gets the answer."""


@dataclass(slots=True)
class Activity:
    """One connection's counters. Changed on the event loop only."""

    message_count: int = 0
    error_count: int = 0
    last_message_id: str = ""
    last_activity: datetime | None = None
    pending: dict[str, PendingCommand] = field(default_factory=dict)
    latencies_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES_KEPT))

    def describe_pending(self) -> list[dict[str, Any]]:
        """The commands in flight, oldest first, as ``session.status`` shows them."""
        return [
            {"id": entry.message_id, "command": entry.command, "stage": entry.stage, "received_at": entry.received_at}
            for entry in self.pending.values()
        ]

    def get_latency_percentiles_ms(self) -> dict[str, float | None]:
        """``p50``, ``p95`` and ``p99`` in ms, each ``None`` as long as nothing was answered."""
        ordered = sorted(self.latencies_seconds)
        if not ordered:
            return {"p50": None, "p95": None, "p99": None}
        last = len(ordered) - 1
        return {f"p{share}": round(ordered[(last * share + 50) // 100] * 1000, 3) for share in (50, 95, 99)}
