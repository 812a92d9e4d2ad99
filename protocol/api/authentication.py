"""Who sends an HTTP request: ``Authorization: Bearer`` with an API key or a JWT."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Final
from weakref import WeakKeyDictionary

import msgspec
from django.http import HttpRequest
from django.utils import timezone
from msgspec import Struct

from protocol import ports
from protocol.database_threads import get_database_threads
from protocol.domain.addresses import read_address
from protocol.domain.messages import ApiKeyCredentials, Authentication, JwtCredentials
from protocol.errors import AuthenticationFailed, AuthenticationRequired
from protocol.marks import read_mark

MAX_TOKEN_LENGTH = 4096
REUSE_SECONDS: Final = 60.0
MAX_KNOWN: Final = 10_000


class Caller(Struct, frozen=True, kw_only=True):
    """Who asks, and from where."""

    principal: ports.Principal
    remote_address: str | None


def read_bearer(header: str) -> Authentication:
    """The credentials of an ``Authorization`` header (RFC 6750).

    Raises:
        AuthenticationRequired: it is empty or of another scheme.
        AuthenticationFailed: it is too long to be one of ours.
    """
    scheme, _, token = header.strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise AuthenticationRequired("Send Authorization: Bearer with an API key or a JWT.")
    return make_credentials(token.strip())


def make_credentials(token: str) -> Authentication:
    """A bearer token as credentials: an API key or a JWT.

    Raises:
        AuthenticationFailed: it is too long to be one of ours.
    """
    if len(token) > MAX_TOKEN_LENGTH:
        raise AuthenticationFailed
    # A JWT has three parts (RFC 7519, section 3.1); a key has one.
    return JwtCredentials(token=token) if token.count(".") == 2 else ApiKeyCredentials(key=token)


class KnownCallers:
    """Who showed which credentials from where, as long as no right was changed or taken: one event loop's.

    Bounded; what is known for ``REUSE_SECONDS`` is asked for again, so that a key's last use goes on being told.
    """

    def __init__(self) -> None:
        self._mark = -1
        self._known: dict[_Shown, tuple[ports.Principal, float]] = {}

    def find(self, shown: _Shown, *, mark: int) -> ports.Principal | None:
        """Who it was; ``mark`` is the present one."""
        if mark != self._mark:
            self._known.clear()
            self._mark = mark
        principal, known_since = self._known.get(shown, (None, 0.0))
        if principal is None or time.monotonic() - known_since > REUSE_SECONDS:
            return None
        # One that has expired is judged anew, and refused by who knows how.
        return None if principal.expires_at is not None and principal.expires_at <= timezone.now() else principal

    def remember(self, shown: _Shown, principal: ports.Principal, *, mark: int) -> None:
        """Keep who it was; ``mark`` is from before that was found out."""
        if mark != self._mark:
            return
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[shown] = (principal, time.monotonic())


_Shown = tuple[bytes, str | None]
"""A digest of the credentials, so that they are not kept, and the address."""
_callers: WeakKeyDictionary[asyncio.AbstractEventLoop, KnownCallers] = WeakKeyDictionary()


async def authenticate(*, credentials: Authentication, remote_address: str | None) -> Caller:
    """Who shows these credentials.

    Raises:
        AuthenticationFailed: they are not accepted.
    """
    mark = await read_mark()
    shown = (hashlib.sha256(msgspec.json.encode(credentials)).digest(), remote_address)
    callers = _callers.setdefault(asyncio.get_running_loop(), KnownCallers())
    principal = callers.find(shown, mark=mark)
    if principal is None:
        principal = await get_database_threads().run(_judge, credentials, remote_address)
        callers.remember(shown, principal, mark=mark)
    return Caller(principal=principal, remote_address=remote_address)


def _judge(credentials: Authentication, remote_address: str | None) -> ports.Principal:
    principal = ports.get_authenticator().authenticate(credentials=credentials, remote_address=remote_address)
    ports.get_recorder().note_request(principal=principal, remote_address=remote_address)
    return principal


def get_remote_address(request: HttpRequest) -> str | None:
    """The peer's IP address; behind a trusted proxy its client's; ``None`` on a Unix socket."""
    return read_address(request.META.get("REMOTE_ADDR"))
