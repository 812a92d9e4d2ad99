"""What Celery's Redis transport lacks: a worker whose acknowledgement is lost must not stop consuming.

A worker takes only so many unacknowledged messages. When the broker goes just as one is acknowledged, the transport
leaves it counted, and once all places are taken so the worker waits for ever, also after the broker is back. Here the
place is freed whatever becomes of the acknowledgement; at worst the message comes again, and its claim fails.
"""

from __future__ import annotations

from kombu.transport import redis
from kombu.transport.virtual import base


class SturdyQoS(redis.QoS):
    """See the module."""

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge; the place is free afterwards even where the broker was not told."""
        try:
            super().ack(delivery_tag)
        finally:
            # The parent's own step, which it leaves out where the broker failed it; again, it does nothing.
            base.QoS.ack(self, delivery_tag)


def install() -> None:
    """Have every Redis channel of this process use it."""
    redis.Channel.QoS = SturdyQoS
