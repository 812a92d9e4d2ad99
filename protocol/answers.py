"""What commands came to, as terminal answers on one connection: at once, by way of the outbox, or later.

Belongs to the event loop. Who runs the commands is ``link``; who reads the outbox is ``hub``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from protocol.domain.activity import PendingCommand, Stage
from protocol.domain.connection import OVERLOAD_RETRY_MS, Connection
from protocol.domain.delivery import Delivery
from protocol.domain.messages import MessageType, ResponsePayload, describe_error
from protocol.errors import MCPError, Overloaded
from protocol.outbox import OutboxEntry
from protocol.registry import Command, CommandContext, Deferred, Peer, Recorded, Stored

logger = logging.getLogger(__name__)


class Answers:
    """See the module."""

    def __init__(self, *, connection: Connection, peer: Peer, request_delivery: Callable[[], None]) -> None:
        self.delivery = Delivery()
        self.forgotten = 0
        """Up to where the outbox knows that the client has everything."""
        self.deferred: dict[str, Deferred] = {}
        self._connection = connection
        self._peer = peer
        self._request_delivery = request_delivery

    def check_acknowledged(self) -> None:
        """Raises ``Overloaded`` where the client is owed no more numbered messages before it acknowledges some."""
        if self.delivery.is_full():
            raise Overloaded(
                "Too many numbered messages are unacknowledged; send a heartbeat with ack.",
                retry_after_ms=OVERLOAD_RETRY_MS,
                details={"sequence": self.delivery.position},
            )

    def fail(self, message_id: str, failure: MCPError, *, trace_id: str, is_repeated: bool) -> None:
        """Answer a command that was not done."""
        if is_repeated:
            # The command of this id that is in flight goes on.
            self._connection.repeat(message_id, describe_error(failure, trace_id=trace_id))
        else:
            self._connection.fail(message_id, failure, trace_id=trace_id)

    def settle_late(self, context: CommandContext, result: Any) -> bool:
        """Take a result that is not the answer itself; ``False`` where it is."""
        connection = self._connection
        if isinstance(result, Deferred):
            if context.message_id in connection.activity.pending:
                self.deferred[context.message_id] = result
        elif isinstance(result, Recorded):
            self._settle_recorded(context.message_id, result)
        elif isinstance(result, Stored):
            connection.answer(context.message_id, result.payload)
        else:
            entry = connection.activity.pending.get(context.message_id)
            if entry is not None:
                entry.stage = Stage.RESPONSE
            return False
        return True

    def settle_repeated(self, context: CommandContext, result: Any, repeated: PendingCommand) -> None:
        """Answer a command that was sent again while in flight."""
        if isinstance(result, Stored):
            self._connection.repeat(context.message_id, result.payload)
        elif not isinstance(result, Deferred | Recorded):
            self._connection.repeat(context.message_id, ResponsePayload(repeated.command, result))
        elif context.message_id in self._connection.activity.pending:
            # The one answer to come is sent once for each.
            repeated.repeats += 1

    def respond(self, command: Command, message_id: str, result: Any) -> None:
        """Answer a command that was done."""
        self._connection.respond(message_id, ResponsePayload(command.name, result))

    def _settle_recorded(self, message_id: str, result: Recorded) -> None:
        if result.sequence == self.delivery.position + 1:
            entry = OutboxEntry(
                sequence=result.sequence, kind=MessageType.RESPONSE, correlation_id=message_id, payload=result.payload
            )
            self.deliver([entry])
        else:
            # An older number is still on its way: all go out in order by one read.
            self._request_delivery()

    def deliver(self, entries: list[OutboxEntry]) -> None:
        """Send numbered messages, ascending; what was sent before is passed over, and a gap stops at it."""
        delivery = self.delivery
        for entry in entries:
            if entry.sequence <= delivery.position:
                continue
            if entry.sequence != delivery.position + 1:
                logger.error("Session %s: message %d is missing", self._peer.session_id, delivery.position + 1)
                break
            delivery.record_sent(sequence=entry.sequence, size_bytes=len(entry.payload))
            self.deferred.pop(entry.correlation_id, None)
            self._connection.deliver(
                entry.kind, entry.payload, correlation_id=entry.correlation_id, sequence=entry.sequence
            )

    def get_expired(self, now: datetime) -> dict[str, Deferred]:
        """The deferred answers whose deadline has passed, by their command's id."""
        return {key: entry for key, entry in self.deferred.items() if entry.deadline and entry.deadline <= now}

    def settle_expired(self, message_id: str) -> None:
        """The deadline was acted upon: the answer is on its way through the outbox."""
        entry = self.deferred.get(message_id)
        if entry is not None:
            self.deferred[message_id] = msgspec.structs.replace(entry, deadline=None)
