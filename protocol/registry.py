"""The command registry: how an app plugs its commands into the message kernel.

Each installed app may have a ``commands.py``; it is found as ``admin.py`` is. A function in it becomes a command by
``@command``; ``Runs`` says where it may run.
"""

from __future__ import annotations

import enum
import inspect
import typing
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from django.utils.module_loading import autodiscover_modules
from msgspec import Struct

from protocol.domain.messages import ErrorPayload, Priority, ResponsePayload, SecurityLevel
from protocol.evidence import NONE, Evidence
from protocol.ports import Principal


class Runs(enum.Enum):
    """Where a handler runs."""

    INLINE = "inline"
    """On the event loop, at once: it must neither query nor wait."""
    IN_THREAD = "in a database thread"
    """One hop for the whole handler; it may query."""
    AS_TASK = "as a task"
    """A coroutine on the event loop; it may wait but not block."""


class Deferred(Struct, frozen=True, kw_only=True):
    """What a command returns whose terminal answer comes later, through the session's outbox."""

    deadline: datetime | None
    """When ``expire`` is called if there is no answer yet."""
    expire: Callable[[], object]
    """Called in a database thread; it must bring the terminal answer about."""
    follow: Callable[[float], Awaitable[ResponsePayload | ErrorPayload | None]]
    """For a caller that has no session, and so no outbox: waits so many seconds for the answer; ``None``: not yet."""


class Recorded(Struct, frozen=True, kw_only=True):
    """What a command returns whose answer stands in the session's outbox already."""

    sequence: int
    payload: bytes
    """The response's payload as JSON, as in the outbox."""

    def __repr__(self) -> str:
        return f"Recorded(sequence={self.sequence!r})"


class Stored(Struct, frozen=True, kw_only=True):
    """What a command returns that was answered before: the same answer again, not numbered (section 9)."""

    payload: ResponsePayload | ErrorPayload


class Peer(Protocol):
    """What a command may do to whoever sent it."""

    @property
    def session_id(self) -> uuid.UUID | None:
        """``None``: it came without one, by HTTP."""

    def emit(self, event: str, data: Any, *, correlation_id: str | None) -> None:
        """Send an event; from any thread, without blocking. It may be dropped, as every event may."""

    def close_after_answer(self) -> None:
        """Close with 1000 once the current command is answered; from the event loop."""

    def describe(self) -> dict[str, Any]:
        """The specification's ``ProtocolState`` of the connection; from the event loop."""


class CommandContext(Struct, frozen=True, kw_only=True):
    """Everything that a command may know of its caller."""

    principal: Principal
    peer: Peer
    message_id: str
    security_level: SecurityLevel
    priority: Priority
    deadline: datetime
    """Of the command: its ``timeout_ms`` or the server's default, counted from receipt."""
    trace_id: str
    idempotency_key: str | None = None
    evidence: Evidence = NONE
    """That the account signed the command; empty where it need not."""

    def emit(self, event: str, data: Any) -> None:
        """Send an event that belongs to this command."""
        self.peer.emit(event, data, correlation_id=self.message_id)


class Command(Struct, frozen=True, kw_only=True):
    """One row of the registry."""

    name: str
    action: str | None
    """What policy is asked for; ``None``: any authenticated principal may."""
    handler: Callable[[CommandContext, Any], Any]
    arguments_type: type
    runs: Runs
    is_changing: bool
    needs_session: bool
    summary: str


Handler = TypeVar("Handler", bound=Callable[..., Any])

_commands: dict[str, Command] = {}


def command(
    name: str,
    *,
    action: str | None = None,
    changes: bool = False,
    needs_session: bool = False,
    runs: Runs | None = None,
) -> Callable[[Handler], Handler]:
    """Register ``handler(context: CommandContext, arguments: SomeStruct) -> result`` under an exact name.

    ``action`` is a first gate: a principal to whom no grant ever gives it is refused before the arguments are decoded;
    the service that the handler calls decides on the resource itself. ``changes`` marks the commands whose effects
    section 9 makes idempotent, ``needs_session`` those that mean nothing without a connection. ``runs`` is by default a
    task for an ``async def`` and a thread for a ``def``.

    Raises:
        TypeError: the name is taken, or the handler's annotations are not as above.
    """

    def register(handler: Handler) -> Handler:
        if name in _commands:
            raise TypeError(f"command {name!r} is {_commands[name].handler.__qualname__}'s")
        hints = typing.get_type_hints(handler)
        if "arguments" not in hints or "context" not in hints:
            raise TypeError(f"{handler.__qualname__} must take (context, arguments), both annotated")
        _commands[name] = Command(
            name=name,
            action=action,
            handler=handler,
            arguments_type=hints["arguments"],
            runs=runs or (Runs.AS_TASK if inspect.iscoroutinefunction(handler) else Runs.IN_THREAD),
            is_changing=changes,
            needs_session=needs_session,
            summary=(inspect.getdoc(handler) or "").partition("\n")[0],
        )
        return handler

    return register


def get_command(name: str) -> Command | None:
    return _commands.get(name)


def get_commands() -> Mapping[str, Command]:
    return MappingProxyType(_commands)


def autodiscover() -> None:
    """Import every installed app's ``commands.py``."""
    autodiscover_modules("commands")
