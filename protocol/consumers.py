"""The WebSocket's edge: accept or refuse, read frames, feed the connection, send what it says.

Channels' stock consumer hops to a thread for every message; this one has a receive loop of its own and hops only for
commands that query (targets.md). ``drain`` is what the web server calls before it stops.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any

from channels.consumer import AsyncConsumer
from django.conf import settings
from django.http.request import split_domain_port, validate_host
from msgspec import Struct

from protocol import denials, ports, sessions
from protocol.database_threads import get_database_threads, get_watch_thread
from protocol.domain.addresses import is_loopback, read_address
from protocol.domain.codec import Codec, choose_codec
from protocol.domain.handshake import Terms
from protocol.domain.messages import Limits, SecurityLevel, ServerInfo
from protocol.domain.origins import is_allowed_origin
from protocol.domain.received import AuthenticationReceived, CommandReceived, HeartbeatReceived, MessageRefused
from protocol.errors import AccessDenied, IpDenied, MCPError, RateLimited
from protocol.hub import Hub, drain, get_hub
from protocol.link import Link, make_trace_id

__all__ = ["MachineContextConsumer", "drain", "refuse_unknown_path"]

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

ABORT_EXTENSION = "mcp.abort"
"""Where our web server's scope holds the function that drops a connection whose peer does not read."""
ABNORMAL_CLOSURE = 1006
"""RFC 6455: the socket went without a closing frame."""


class MachineContextConsumer(AsyncConsumer):  # type: ignore[misc]  # Channels has no types
    """Serves the protocol's WebSocket transport (protocol.md section 1)."""

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        hub = get_hub()
        codec = choose_codec(list(scope.get("subprotocols", ())))
        refusal = await find_refusal(codec=codec, hub=hub, scope=scope)
        if refusal is not None or codec is None:
            await refuse(scope, send, refusal or Refusal(status=400))
            return
        hub.start()
        address = get_address(scope)
        await send(
            {"type": "websocket.accept", "subprotocol": codec.subprotocol if scope.get("subprotocols") else None}
        )
        link = Link(
            codec=codec,
            terms=get_terms(is_local=is_loopback(address)),
            send=send,
            abort=scope.get("extensions", {}).get(ABORT_EXTENSION, {}).get("abort"),
            remote_address=address,
            owner=hub,
        )
        hub.add(link)
        close_code: int | None = ABNORMAL_CLOSURE
        try:
            close_code = await serve_link(link, receive)
        except OSError:
            # The server's way to say that the peer is gone.
            pass
        finally:
            hub.remove(link)
            try:
                await link.stop()
            finally:
                await end_session(link, close_code)


async def serve_link(link: Link, receive: Receive) -> int | None:
    """Read until the socket closes; its close code."""
    connection = link.connection
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            code: int | None = message.get("code")
            return code
        frame = message.get("text")
        if frame is None:
            frame = message["bytes"]
        link.seen_tick = time.monotonic()
        event = connection.receive(frame)
        if type(event) is CommandReceived:
            link.start_command(event)
        elif type(event) is HeartbeatReceived:
            link.manners.note_heartbeat()
            link.answers.delivery.acknowledge(event.ack)
        elif type(event) is MessageRefused:
            link.manners.note_other(link.principal)
            link.refuse(event)
        else:
            link.manners.note_other(link.principal)
            if type(event) is AuthenticationReceived:
                link.start_authentication(event)
        if connection.has_output():
            await link.writer.flush()
        await link.writer.wait_for_room()


async def end_session(link: Link, close_code: int | None) -> None:
    """Mark the link's session ended. Where the database is away, ``sessions.expire_sessions`` does it later."""
    if link.principal is None:
        return
    reason = link.connection.closing
    ended = get_database_threads().run(
        sessions.end_session,
        session_id=link.session_id,
        close_code=close_code if reason is None else reason.code,
    )
    # Shielded: the server cancels this task when it stops, but the row should still say so.
    try:
        await asyncio.shield(ended)
    except MCPError:
        return


class Refusal(Struct, frozen=True, kw_only=True):
    """With what an upgrade is answered that is not accepted."""

    status: int
    retry_after_seconds: int | None = None


async def find_refusal(*, codec: Codec | None, hub: Hub, scope: dict[str, Any]) -> Refusal | None:
    """Why the upgrade is refused, if it is: before it costs more than its head."""
    address = get_address(scope)
    failure = await find_address_refusal(address)
    if failure is not None:
        return make_refusal(failure)
    if not has_allowed_origin(scope):
        return make_refusal(await record_refusal(AccessDenied(), remote_address=address, subject="origin"))
    if codec is None:
        return Refusal(status=400)
    try:
        await ports.get_limiter().take_address(counted=ports.StrangersCount.CONNECTIONS, address=address)
    except RateLimited as error:
        return make_refusal(await record_refusal(error, remote_address=address, subject="connections"))
    if hub.is_draining or len(hub.links) >= settings.MCP.max_connections:
        return Refusal(status=503, retry_after_seconds=1)
    if hub.count_from(address) >= settings.MCP.connections_per_address:
        failure = RateLimited(retry_after_ms=1000)
        return make_refusal(await record_refusal(failure, remote_address=address, subject="connections"))
    return None


def make_refusal(failure: MCPError) -> Refusal:
    """The failure as an upgrade is answered with it."""
    wait_ms = failure.retry_after_ms
    return Refusal(
        status=failure.http_status, retry_after_seconds=None if wait_ms is None else math.ceil(wait_ms / 1000)
    )


async def find_address_refusal(remote_address: str | None) -> MCPError | None:
    """Why nobody may come from there, on record."""
    guard = ports.get_address_guard()
    try:
        is_refused = guard.is_refused_now(remote_address=remote_address)
        if is_refused is None:
            is_refused = await get_watch_thread().run(guard.is_refused, remote_address=remote_address)
    except MCPError as error:
        return error
    if not is_refused:
        return None
    return await record_refusal(IpDenied(), remote_address=remote_address, subject="address")


async def record_refusal(failure: MCPError, *, remote_address: str | None, subject: str) -> MCPError:
    """With what to refuse an upgrade, on record; ``subject`` is what was wrong with it."""
    denial = denials.make_denial(
        failure,
        door=ports.Door.WEBSOCKET,
        remote_address=remote_address,
        principal=None,
        kind="connection",
        subject=subject,
        trace_id=make_trace_id(),
    )
    return await denials.record(denial, failure)


def has_allowed_origin(scope: dict[str, Any]) -> bool:
    """Whether it is no web page that connects, or one of ours, or one that the settings name."""
    headers = dict(scope.get("headers", ()))
    origin = headers.get(b"origin")
    return is_allowed_origin(
        None if origin is None else origin.decode("latin-1"),
        host=headers.get(b"host", b"").decode("latin-1"),
        is_secure=scope.get("scheme") == "wss",
        allowed_origins=settings.MCP.allowed_origins,
        is_own_host=lambda host: validate_host(split_domain_port(host)[0], settings.ALLOWED_HOSTS),
    )


async def refuse(scope: dict[str, Any], send: Send, refusal: Refusal) -> None:
    """Answer the upgrade with an HTTP status; where the server cannot, with its own 403."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close"})
        return
    retry_after = refusal.retry_after_seconds
    headers = [] if retry_after is None else [(b"retry-after", str(retry_after).encode())]  # HTTP's own number
    await send({"type": "websocket.http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b""})


async def refuse_unknown_path(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """The consumer of every path that has none: 404, without a word in the log."""
    await receive()  # websocket.connect
    await refuse(scope, send, Refusal(status=404))


def get_address(scope: dict[str, Any]) -> str | None:
    """The peer's IP address; ``None`` on a Unix socket."""
    client = scope.get("client")
    return read_address(client[0]) if client else None


@lru_cache(maxsize=2)
def get_terms(*, is_local: bool) -> Terms:
    """What the settings make the server offer; level ``low`` only to this machine itself."""
    own = settings.MCP
    minimum = SecurityLevel(own.minimum_security_level)
    if minimum is SecurityLevel.LOW and not is_local:
        minimum = SecurityLevel.STANDARD
    return Terms(
        server=ServerInfo(name=settings.SERVER_NAME, version=settings.SERVER_VERSION),
        limits=Limits(
            max_message_size=own.max_message_size_bytes,
            max_batch=1,
            max_in_flight=own.max_in_flight,
            timeout_ms=int(own.command_timeout_seconds * 1000),
            heartbeat_interval_ms=int(own.heartbeat_interval_seconds * 1000),
            resume_window_ms=0,
        ),
        minimum_level=minimum,
    )
