"""The console's sessions: Django's in the database, which also end when nobody does anything, and at the latest so long
after the sign-in.

Whoever reads a session, a page or a stream, reads it here; one that is over is empty.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessionStore
from django.contrib.sessions.base_session import AbstractBaseSession
from django.contrib.sessions.models import Session
from django.dispatch import receiver
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.decorators import sync_and_async_middleware

SIGNED_IN_AT: Final = "signed_in_at"
SEEN_AT: Final = "seen_at"
"""Both in seconds since 1970."""
SEEN_RESOLUTION_SECONDS: Final = 60
"""How old a recorded activity gets before it is written again: a write a minute, not one a page."""
CONSOLE_PREFIX: Final = "/admin/"
PURGE_LIMIT: Final = 1_000
"""Rows deleted in one transaction."""


class SessionStore(DatabaseSessionStore):
    """Django's, with two ages. The database has hashes of keys: whoever reads it, or a backup, is signed in nowhere."""

    def exists(self, session_key: str) -> bool:
        return super().exists(hash_session_key(session_key))

    async def aexists(self, session_key: str) -> bool:
        return await super().aexists(hash_session_key(session_key))

    def create_model_instance(self, data: dict[str, Any]) -> AbstractBaseSession:
        row = super().create_model_instance(data)
        row.session_key = hash_session_key(row.session_key)
        return row

    async def acreate_model_instance(self, data: dict[str, Any]) -> AbstractBaseSession:
        row = await super().acreate_model_instance(data)
        row.session_key = hash_session_key(row.session_key)
        return row

    def delete(self, session_key: str | None = None) -> None:
        key = session_key or self.session_key
        if key is not None:
            Session.objects.filter(session_key=hash_session_key(key)).delete()

    async def adelete(self, session_key: str | None = None) -> None:
        await sync_to_async(self.delete)(session_key)

    def load(self) -> dict[str, Any]:
        if self.session_key is None:
            return {}
        live = Session.objects.filter(session_key=hash_session_key(self.session_key), expire_date__gt=timezone.now())
        row = live.first()
        if row is None:
            self._session_key = None
            return {}
        data: dict[str, Any] = self.decode(row.session_data)
        if is_over(data, now=time.time()):
            self.delete(self.session_key)
            self._session_key = None
            return {}
        return data

    async def aload(self) -> dict[str, Any]:
        # Django's own knows nothing of the ages.
        return await sync_to_async(self.load)()


def hash_session_key(key: str) -> str:
    """What stands for the key in the database: 240 bits of SHA-256, as long as the column is."""
    return base64.urlsafe_b64encode(hashlib.sha256(key.encode()).digest()[:30]).decode()


def purge_sessions() -> int:
    """Delete what ended by its age; how many. Idle ones end when they are read, and by their age at the latest."""
    past = Session.objects.filter(expire_date__lt=timezone.now())
    total = 0
    while batch := list(past.values_list("session_key", flat=True)[:PURGE_LIMIT]):
        # The condition again: one of them may have been used meanwhile.
        total += past.filter(session_key__in=batch).delete()[0]
    return total


def is_over(data: dict[str, Any], *, now: float) -> bool:
    """Whether somebody was signed in by this session, for too long or too long idle."""
    if SESSION_KEY not in data:
        return False
    idle_seconds, most_seconds = settings.MCP.console_idle_minutes * 60, settings.MCP.console_session_hours * 3600
    # What lacks a time was made by nobody's sign-in.
    return bool(now - data.get(SEEN_AT, 0) > idle_seconds or now - data.get(SIGNED_IN_AT, 0) > most_seconds)


@receiver(user_logged_in, dispatch_uid="console.session.begin")
def begin_session(*, request: HttpRequest, **_: Any) -> None:
    """Note when somebody signed in. Django has given the session a new key already."""
    request.session[SIGNED_IN_AT] = request.session[SEEN_AT] = int(time.time())


def touch(request: HttpRequest) -> None:
    """Note that who is signed in did something."""
    now = int(time.time())
    if SESSION_KEY in request.session and now - request.session.get(SEEN_AT, 0) >= SEEN_RESOLUTION_SECONDS:
        request.session[SEEN_AT] = now


def is_activity(request: HttpRequest) -> bool:
    """Whether it was a person: parts that a page reads again by itself keep nobody signed in."""
    if not request.path.startswith(CONSOLE_PREFIX) or settings.SESSION_COOKIE_NAME not in request.COOKIES:
        return False
    is_stream = request.headers.get("Accept", "") == "text/event-stream"
    return request.method != "GET" or not (is_stream or request.headers.get("HX-Request"))


@sync_and_async_middleware
def note_activity(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Django's middleware: a person's request to the console keeps the session alive."""
    if iscoroutinefunction(get_response):
        get_later: Callable[[HttpRequest], Awaitable[HttpResponseBase]] = get_response

        async def answer_later(request: HttpRequest) -> HttpResponseBase:
            if is_activity(request):
                await sync_to_async(touch)(request)
            return await get_later(request)

        return answer_later

    def answer(request: HttpRequest) -> HttpResponseBase:
        if is_activity(request):
            touch(request)
        response: HttpResponseBase = get_response(request)
        return response

    return answer
