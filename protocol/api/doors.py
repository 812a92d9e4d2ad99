"""Commands by HTTP: who has no connection calls the same commands, by the same dispatch, under the same policy."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone
from msgspec import Struct

from protocol import dispatch
from protocol.api.authentication import Caller
from protocol.database_threads import get_database_threads, release_request_thread
from protocol.domain.messages import ErrorPayload, Priority, ResponsePayload, SecurityLevel
from protocol.errors import SecurityLevelTooLow, SystemTimeout, TokenExpired
from protocol.registry import Command, CommandContext, Deferred, Stored

EXPIRED_ANSWER_SECONDS = 5.0
"""How long a command whose deadline has passed may take to say so."""


class HttpPeer:
    """``protocol.registry.Peer`` for whoever has no connection."""

    session_id: uuid.UUID | None = None

    def emit(self, event: str, data: Any, *, correlation_id: str | None) -> None:
        """Nothing: every event may be dropped, and there is nowhere to send this one."""

    def close_after_answer(self) -> None:
        raise NotImplementedError("only commands that need a session close it")

    def describe(self) -> dict[str, Any]:
        raise NotImplementedError("only commands that need a session describe it")


class Call(Struct, frozen=True, kw_only=True):
    """One command that came by HTTP, but for its arguments."""

    caller: Caller
    name: str
    trace_id: str
    message_id: str = ""
    priority: Priority = Priority.NORMAL
    security_level: SecurityLevel = SecurityLevel.STANDARD
    timeout_ms: int | None = None
    idempotency_key: str | None = None
    received_at: datetime


async def run_call(call: Call, *, decode: Callable[[Command], Any]) -> ResponsePayload | ErrorPayload:
    """The command's terminal answer; ``decode`` gives its typed arguments.

    Raises:
        MCPError: it was refused, or failed.
    """
    principal = call.caller.principal
    if principal.expires_at is not None and principal.expires_at <= call.received_at:
        raise TokenExpired
    require_minimum_level(call.security_level)
    if call.security_level.rank < principal.security_level.rank:
        # What a message says of itself counts: none gets by a lower level what demands a higher one.
        principal = replace(principal, security_level=call.security_level)
    command = dispatch.resolve_stateless(name=call.name, principal=principal)
    arguments = decode(command)
    timeout_ms = call.timeout_ms or int(settings.MCP.command_timeout_seconds * 1000)
    context = CommandContext(
        principal=principal,
        peer=HttpPeer(),
        message_id=call.message_id,
        security_level=call.security_level,
        priority=call.priority,
        deadline=call.received_at + timedelta(milliseconds=timeout_ms),
        trace_id=call.trace_id,
        idempotency_key=call.idempotency_key,
    )
    result = await dispatch.run(command, context, arguments)
    if isinstance(result, Stored):
        return result.payload
    if isinstance(result, Deferred):
        return await _follow(result)
    return ResponsePayload(command.name, result)


def require_minimum_level(level: SecurityLevel) -> None:
    """Go on only with what has the server's minimum level; by HTTP nothing is sealed.

    Raises:
        SecurityLevelTooLow: it has less.
    """
    minimum = SecurityLevel(settings.MCP.minimum_security_level)
    if level.rank < minimum.rank:
        raise SecurityLevelTooLow(details={"security_level": minimum.value})


async def _follow(deferred: Deferred) -> ResponsePayload | ErrorPayload:
    """The answer, once it is there; at the deadline the command is ended, and says so."""
    assert deferred.deadline is not None  # noqa: S101  # whoever has no session waits until a deadline
    await release_request_thread()
    remaining = (deferred.deadline - timezone.now()).total_seconds()
    answer = await deferred.follow(max(0.0, remaining))
    if answer is None:
        await get_database_threads().run(deferred.expire)
        answer = await deferred.follow(EXPIRED_ANSWER_SECONDS)
    if answer is None:
        raise SystemTimeout
    return answer
