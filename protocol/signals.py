"""What higher apps may hear of the kernel; receivers run inside the transaction that it happens in."""

from __future__ import annotations

from django.dispatch import Signal

session_ended = Signal()
"""A session has ended for good: ``session_id`` (``uuid.UUID``). Its row is locked; lock no other session's."""
