"""The kernel's own commands: what a session can ask about itself."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.utils import timezone
from msgspec import Struct

from protocol.registry import CommandContext, Runs, command


class NoArguments(Struct, frozen=True, forbid_unknown_fields=True):
    """Takes nothing."""


class Pong(Struct, frozen=True):
    server_time: datetime


class Nothing(Struct, frozen=True):
    """Says nothing."""


@command("session.ping", runs=Runs.INLINE)
def ping(context: CommandContext, arguments: NoArguments) -> Pong:  # noqa: ARG001  # every command takes both
    """Answer with the server's time."""
    return Pong(timezone.now())


@command("session.status", needs_session=True, runs=Runs.INLINE)
def status(context: CommandContext, arguments: NoArguments) -> dict[str, Any]:  # noqa: ARG001  # every command takes both
    """The connection's state as the server sees it."""
    return context.peer.describe()


@command("session.close", needs_session=True, runs=Runs.INLINE)
def close(context: CommandContext, arguments: NoArguments) -> Nothing:  # noqa: ARG001  # every command takes both
    """End the session; the socket closes with 1000 after the answer."""
    context.peer.close_after_answer()
    return Nothing()
