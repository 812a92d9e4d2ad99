"""Where a client stands in its session's numbered messages (protocol.md section 10)."""

from __future__ import annotations

from collections import deque

MAX_UNACKNOWLEDGED = 1_024
MAX_UNACKNOWLEDGED_BYTES = 8 * 1024 * 1024
"""More than this unacknowledged, and the session takes no changing command (section 9)."""


class Delivery:
    """One connection's position. What was sent is counted until the client says that it has it."""

    def __init__(self) -> None:
        self.position = 0
        """The last numbered message that was sent."""
        self.acknowledged = 0
        """The client has everything up to here."""
        self._unacknowledged: deque[tuple[int, int]] = deque()
        self._unacknowledged_bytes = 0

    def record_sent(self, *, sequence: int, size_bytes: int) -> None:
        """The message after ``position`` went out."""
        self.position = sequence
        self._unacknowledged.append((sequence, size_bytes))
        self._unacknowledged_bytes += size_bytes

    def acknowledge(self, sequence: int) -> None:
        """The client has everything up to ``sequence``; what was never sent it cannot have."""
        while self._unacknowledged and self._unacknowledged[0][0] <= sequence:
            self.acknowledged, size_bytes = self._unacknowledged.popleft()
            self._unacknowledged_bytes -= size_bytes

    def is_full(self) -> bool:
        """Whether the client is owed more acknowledgements than it may be."""
        return len(self._unacknowledged) > MAX_UNACKNOWLEDGED or self._unacknowledged_bytes > MAX_UNACKNOWLEDGED_BYTES
