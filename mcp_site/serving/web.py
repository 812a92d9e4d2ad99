"""The web process: uvicorn with bounds on what a peer may send, and a drain before it stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mcp_site.asgi import application
from mcp_site.monitoring import readiness
from mcp_site.serving.listener import bind_listener
from mcp_site.serving.parts import PartOptions
from mcp_site.serving.preflight import check_transport, make_tls_context
from mcp_site.serving.transport import guard_transport
from mcp_site.serving.websocket import BoundedWebSocketProtocol
from protocol import consumers

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""Above Django's own limits, which answer better; this one bounds what they never get to see."""
BODY_SECONDS: Final = 30.0
HTTP_RESERVE: Final = 512
"""Connections beyond the sockets' limit that are left for HTTP."""
DRAIN_SHARE: Final = 0.75
"""Of the time to stop, what running commands have; the rest is for the other processes."""
PING_INTERVAL_SECONDS: Final = 20.0
PING_TIMEOUT_SECONDS: Final = 45.0
"""Longer than reading is ever paused for a slow reader, since pongs are not read meanwhile."""


class MalformedHead(Exception):
    """A head that two readers may take for requests to different hosts (RFC 9112, sections 3.2 and 3.2.2)."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP with limits that it lacks: on a request's size, and on how long a peer may take to send it."""

    head_seconds: float = 5.0
    _received = 0
    _has_head = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._expect(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # In pieces of what may still come: a head and much of its body may arrive at once, and several requests too.
        while data and not self.transport.is_closing():
            room = MAX_HEAD_BYTES + (MAX_BODY_BYTES if self._has_head else 0) - self._received
            if room <= 0:
                self.send_400_response("Request too large.")
                return
            piece, data = data[:room], data[room:]
            self._received += len(piece)
            super().data_received(piece)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._has_head = False
        self._expect(self.head_seconds)

    def on_headers_complete(self) -> None:
        # The parser's caller takes it for one of its own errors: it answers with 400 and closes.
        if not self.url.startswith(b"/") and self.url != b"*":
            raise MalformedHead("the target is no path")
        if self.parser.get_http_version() == "1.1" and all(name != b"host" for name, _ in self.headers):
            raise MalformedHead("there is no Host")
        super().on_headers_complete()
        self._has_head = True
        self._expect(BODY_SECONDS)

    def on_message_complete(self) -> None:
        self._received, self._has_head = 0, False
        self._expect(None)
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        # From here on the deadlines are the protocol's own.
        self._expect(None)
        super().handle_websocket_upgrade()

    def _expect(self, seconds: float | None) -> None:
        """The next step must come within so many seconds; ``None``: nothing is awaited."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self.transport.close)


class DrainingServer(uvicorn.Server):
    """On a signal it first lets running commands finish, then stops; on a second one it stops at once."""

    def __init__(self, config: uvicorn.Config, *, drain_seconds: float) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._drain_task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._begin_stop)
        yield

    def _begin_stop(self) -> None:
        if self._drain_task is None:
            self._drain_task = asyncio.get_running_loop().create_task(self._drain())
        else:
            self.should_exit = self.force_exit = True

    async def _drain(self) -> None:
        readiness.announce_drain()
        try:
            await consumers.drain(timeout_seconds=self._drain_seconds * DRAIN_SHARE)
        except Exception:  # the process's edge: whatever fails here, it must still stop
            logger.exception("the drain failed")
        self.should_exit = True


def run(options: PartOptions) -> int:
    """Serve until a signal. The exit code."""
    environment = options.environment
    if options.listener_descriptor is None:
        check_transport(environment)
        listener = bind_listener(host=environment.bind, port=environment.port)
        logger.info("listening on %s port %d", environment.bind, listener.getsockname()[1])
    else:
        listener = socket.socket(fileno=options.listener_descriptor)
    _raise_descriptor_limit(environment.max_connections + HTTP_RESERVE + 256)
    has_tls = environment.tls_cert is not None
    http = type("HttpProtocol", (BoundedHttpProtocol,), {"head_seconds": environment.handshake_timeout_seconds})
    config = uvicorn.Config(
        guard_transport(application, environment=environment),
        loop="uvloop",
        http=http,
        ws=BoundedWebSocketProtocol,
        ws_max_size=environment.max_message_size_bytes,
        ws_per_message_deflate=False,
        ws_ping_interval=PING_INTERVAL_SECONDS,
        ws_ping_timeout=PING_TIMEOUT_SECONDS,
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=environment.max_connections + HTTP_RESERVE,
        timeout_graceful_shutdown=1,
        ssl_context_factory=(lambda *_: make_tls_context(environment)) if has_tls else None,
    )
    DrainingServer(config, drain_seconds=environment.drain_seconds).run(sockets=[listener])
    return 0


def _raise_descriptor_limit(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < needed:
        logger.warning("the limit of open files, %d, is below what MCP_MAX_CONNECTIONS needs, %d", wanted, needed)
