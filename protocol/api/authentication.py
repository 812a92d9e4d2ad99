"""Who sends an HTTP request: ``Authorization: Bearer`` with an API key or a JWT."""

from __future__ import annotations

from django.http import HttpRequest
from msgspec import Struct

from protocol import ports
from protocol.database_threads import get_database_threads
from protocol.domain.addresses import read_address
from protocol.domain.messages import ApiKeyCredentials, Authentication, JwtCredentials
from protocol.errors import AuthenticationFailed, AuthenticationRequired

MAX_TOKEN_LENGTH = 4096


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


async def authenticate(*, credentials: Authentication, remote_address: str | None) -> Caller:
    """Who shows these credentials.

    Raises:
        AuthenticationFailed: they are not accepted.
    """
    principal = await get_database_threads().run(_judge, credentials, remote_address)
    return Caller(principal=principal, remote_address=remote_address)


def _judge(credentials: Authentication, remote_address: str | None) -> ports.Principal:
    principal = ports.get_authenticator().authenticate(credentials=credentials, remote_address=remote_address)
    ports.get_recorder().note_request(principal=principal, remote_address=remote_address)
    return principal


def get_remote_address(request: HttpRequest) -> str | None:
    """The peer's IP address; behind a trusted proxy its client's; ``None`` on a Unix socket."""
    return read_address(request.META.get("REMOTE_ADDR"))
