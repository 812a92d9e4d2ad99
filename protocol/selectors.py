"""Reads of sessions and of what they are owed, as the console shows them."""

from __future__ import annotations

import uuid
from datetime import datetime

from protocol.models import OutboxMessage, Session


def count_connected_sessions(*, seen_since: datetime) -> int:
    """How many sessions have not ended and were said to be connected since then."""
    return Session.objects.filter(ended_at=None, seen_at__gte=seen_since).count()


def find_session(*, session_id: uuid.UUID | None) -> Session | None:
    """The session; ``None`` where there was none, or it is forgotten."""
    return None if session_id is None else Session.objects.filter(id=session_id).first()


def count_unacknowledged_messages(*, session_id: uuid.UUID) -> int:
    """How many numbered messages the session is still owed."""
    return OutboxMessage.objects.filter(session_id=session_id).count()
