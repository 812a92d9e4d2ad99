"""News of a run for its page, as server-sent events (HTML, "Server-sent events"): a hint that it changed, no content.

The page then reads itself again, so that what it shows is made in one place. No thread and no database connection is
held while a stream waits. Each stream is bounded: it ends with the run, with the session of whoever looks, when the
server drains, and after ``MAX_SECONDS``; a browser connects again by itself.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Final

import msgspec
from django.conf import settings
from django.contrib import admin
from django.contrib.auth import get_user
from django.http import HttpRequest, HttpResponse, HttpResponseForbidden, StreamingHttpResponse

from protocol.database_threads import get_database_threads, release_request_thread
from protocol.errors import MCPError
from protocol.hub import get_hub
from security.admin import get_principal
from tools import selectors
from tools.models import Execution
from tools.watching import Watch, get_board

MAX_SECONDS: Final = 600.0
HEARTBEAT_SECONDS: Final = 15.0
SESSION_SECONDS: Final = 5.0
"""How often it is looked whether whoever looks still may."""
STEP_SECONDS: Final = 0.5
"""How soon a stream ends when the server drains."""
RECONNECT_MS: Final = 1_000
HEADERS: Final = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}

CHANGED: Final = "changed"
OVER: Final = "over"
SIGNED_OUT: Final = "signed-out"


async def watch_execution(request: HttpRequest, execution_id: uuid.UUID) -> HttpResponse | StreamingHttpResponse:
    """The stream of one run's news, for whoever may see its page and, by the policy, the run."""
    session_key = request.COOKIES.get(settings.SESSION_COOKIE_NAME, "")
    if not await get_database_threads().run(may_watch, session_key=session_key, execution_id=execution_id):
        return HttpResponseForbidden("You may not watch this run.", content_type="text/plain")
    news = stream_news(session_key=session_key, execution_id=execution_id)
    return StreamingHttpResponse(news, content_type="text/event-stream", headers=HEADERS)


def may_watch(*, session_key: str, execution_id: uuid.UUID) -> bool:
    """Whether the session stands and its account may see the run. Asks the database, for all of it, each time."""
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    request.user = get_user(request)
    page = admin.site.get_model_admin(Execution)
    return (
        admin.site.has_permission(request)
        and page.has_view_permission(request)
        and selectors.may_view_execution(principal=get_principal(request), execution_id=execution_id)
    )


async def stream_news(*, session_key: str, execution_id: uuid.UUID) -> AsyncIterator[bytes]:
    """The events, encoded; ``changed`` for each change, then ``over`` or ``signed-out``, or just the end."""
    await release_request_thread()
    yield f"retry: {RECONNECT_MS}\n\n".encode()
    try:
        async with get_board().watch(execution_id) as watch:
            async for chunk in _tell_news(watch, session_key=session_key):
                yield chunk
    except MCPError:
        # Too many watch, or the database is away: the browser comes again.
        return


async def _tell_news(watch: Watch, *, session_key: str) -> AsyncIterator[bytes]:
    now = time.monotonic()
    ends_at, heartbeat_at, session_at = now + MAX_SECONDS, now + HEARTBEAT_SECONDS, now + SESSION_SECONDS
    while now < ends_at and not get_hub().is_draining:
        is_news = await watch.wait_for_news(seconds=STEP_SECONDS)
        now = time.monotonic()
        if now >= session_at:
            session_at = now + SESSION_SECONDS
            if not await get_database_threads().run(
                may_watch, session_key=session_key, execution_id=watch.execution_id
            ):
                yield encode_event(SIGNED_OUT)
                return
        if is_news:
            heartbeat_at = now + HEARTBEAT_SECONDS
            yield encode_event(CHANGED, msgspec.json.encode(watch.seen))
            if watch.seen is None or watch.seen.is_over:
                yield encode_event(OVER)
                return
        elif now >= heartbeat_at:
            heartbeat_at = now + HEARTBEAT_SECONDS
            yield b": still here\n\n"


def encode_event(name: str, data: bytes = b"{}") -> bytes:
    """One event; ``data`` is JSON, so that it has no line break."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)
