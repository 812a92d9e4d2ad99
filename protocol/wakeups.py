"""Wake-ups from whoever changed a session's outbox to the process that owns the socket, over the channel layer.

A wake-up may be lost, late or doubled: the outbox is the truth and is also read on a timer. Events that may be dropped
(progress, state changes) ride along. This is the sending half, callable from workers; ``protocol.hub`` receives.
"""

from __future__ import annotations

import logging
import threading
import uuid
from functools import lru_cache
from typing import Any

import redis
from channels.layers import get_channel_layer
from django.conf import settings
from msgspec import Struct

logger = logging.getLogger(__name__)

PUBLISH_TIMEOUT_SECONDS = 0.5
"""How long a worker is held up at most by a broker that does not answer."""


class RiddenEvent(Struct, frozen=True, kw_only=True):
    """An event that goes to a session with a wake-up."""

    event: str
    data: dict[str, Any]
    correlation_id: str | None
    feature: str | None = None
    """The feature without which the client is not sent it."""


class Wakeup(Struct, frozen=True, kw_only=True):
    session_id: uuid.UUID
    events: tuple[RiddenEvent, ...] = ()
    has_outbox: bool = False
    """Whether the outbox has something new; else only the events are for the session."""


def encode_wakeup(wakeup: Wakeup) -> dict[str, Any]:
    """The channel-layer message, of MessagePack's types."""
    return {
        "session": wakeup.session_id.bytes,
        "outbox": wakeup.has_outbox,
        "events": [[event.event, event.data, event.correlation_id, event.feature] for event in wakeup.events],
    }


def decode_wakeup(message: dict[str, Any]) -> Wakeup:
    """What ``encode_wakeup`` made."""
    return Wakeup(
        session_id=uuid.UUID(bytes=message["session"]),
        has_outbox=message["outbox"],
        events=tuple(
            RiddenEvent(event=event, data=data, correlation_id=correlation_id, feature=feature)
            for event, data, correlation_id, feature in message["events"]
        ),
    )


_health = threading.local()


def publish(*, channel: str, wakeup: Wakeup) -> None:
    """Wake the process that listens on ``channel``; a broker that is gone is logged once and costs nothing else."""
    if not channel:
        return
    try:
        _get_client().publish(channel, _serialize(encode_wakeup(wakeup)))
    except redis.RedisError as error:
        if not getattr(_health, "is_failing", False):
            logger.warning("Wake-ups cannot be sent (%s); sessions read their outbox on a timer.", type(error).__name__)
        _health.is_failing = True
    else:
        _health.is_failing = False


@lru_cache(maxsize=1)
def _get_client() -> redis.Redis:
    # The layer's own sending is a coroutine; from a worker a plain client costs half (docs/explanation/decisions).
    return redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=PUBLISH_TIMEOUT_SECONDS,
        socket_connect_timeout=PUBLISH_TIMEOUT_SECONDS,
    )


def _serialize(message: dict[str, Any]) -> bytes:
    layer = get_channel_layer()
    assert layer is not None  # noqa: S101  # the settings always configure one
    return bytes(layer.serialize(message))
