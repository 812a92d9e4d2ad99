"""What reaches a connection that is open: revocations, changed rights, and the end of what it showed."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from channels.layers import get_channel_layer
from django.utils import timezone

from protocol import ports, revocations, sessions
from protocol.database_threads import get_database_threads
from protocol.domain.expiry import ExpiryTimes
from protocol.domain.messages import Authentication, SecurityLevel
from protocol.hub import get_hub
from protocol.models import Session
from protocol.ports import Principal
from protocol.sessions import SEEN_INTERVAL_SECONDS
from security import services
from security.models import Account, ApiKey
from security.selectors import get_account_principal
from security.services import IssuedKey, IssuedTokens
from tests.asgi import ServerSocket, open_socket
from tests.factories import (
    PASSWORD,
    create_operator,
    create_person,
    create_role,
    create_service,
    deny,
    issue_key,
    issue_tokens,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("valkey_url")]

T = TypeVar("T")

REVOKED = 4403
TOKEN_EXPIRED = 4401


@pytest.fixture(autouse=True)
async def _end_hub() -> AsyncIterator[None]:
    yield
    await get_hub().stop()
    layer = get_channel_layer()
    assert layer is not None
    await layer.flush()


class CountingAuthenticator:
    """The real one, which remembers what it was asked."""

    def __init__(self, real: ports.Authenticator) -> None:
        self.real = real
        self.calls: list[str] = []

    def authenticate(
        self,
        *,
        credentials: Authentication,
        remote_address: str | None,
        security_level: SecurityLevel = SecurityLevel.STANDARD,
    ) -> Principal:
        return self.real.authenticate(
            credentials=credentials, remote_address=remote_address, security_level=security_level
        )

    def get_mark(self) -> int:
        self.calls.append("get_mark")
        return self.real.get_mark()

    def renew(self, principals: Sequence[Principal]) -> list[Principal | None]:
        self.calls.append(f"renew {len(principals)}")
        return self.real.renew(principals)


async def ask(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Ask the database, which no coroutine may do itself."""
    return await get_database_threads().run(function, *args, **kwargs)


async def authenticate(socket: ServerSocket, **credentials: Any) -> dict[str, Any]:
    """Shake hands and show these; the answer."""
    await socket.receive_raw()
    await socket.receive_answer(socket.send("handshake", {"protocol_versions": ["1.1"], "client": {"name": "test"}}))
    return await show(socket, **credentials)


async def show(socket: ServerSocket, **credentials: Any) -> dict[str, Any]:
    return await socket.receive_answer(socket.send("authentication", credentials))


async def ping(socket: ServerSocket) -> str:
    """What a ping comes to: ``response``, or the error's code."""
    answer = await socket.receive_answer(socket.send_command("session.ping"))
    return str(answer["payload"].get("code", answer["type"]))


async def wait_closed(socket: ServerSocket) -> int:
    """The close code; what comes before it is passed over."""
    while True:
        sent = await socket.receive_raw()
        if sent["type"] == "websocket.close":
            return int(sent["code"])


# Authenticating


async def test_each_method_opens_a_session_with_its_credential() -> None:
    key = await ask(issue_key)
    pair = await ask(issue_tokens, key=key)
    person = await ask(create_person, password=PASSWORD)
    for credentials, account_id, expires in (
        ({"method": "api_key", "key": key.secret}, key.api_key.account_id, False),
        ({"method": "jwt", "token": pair.access}, key.api_key.account_id, True),
        ({"method": "password", "username": person.username, "password": PASSWORD}, person.id, False),
    ):
        async with open_socket() as (socket, _):
            payload = (await authenticate(socket, **credentials))["payload"]
            assert payload["principal"]["id"] == str(account_id)
            assert (payload["expires_at"] is not None) is expires
            assert await ping(socket) == "response"
    found = await ask(lambda: set(Session.objects.values_list("credential_id", flat=True)))
    assert {key.api_key.id, pair.access_jti} < found
    assert len(found) == 3


async def test_a_lock_out_is_told_with_its_time() -> None:
    async with open_socket() as (socket, _):
        wrong = {"method": "password", "username": "nobody", "password": "wrong"}
        answer = await authenticate(socket, **wrong)
        for _ in range(4):
            assert answer["payload"]["code"] == "security.authentication_failed"
            answer = await show(socket, **wrong)
        payload = (await show(socket, **wrong))["payload"]
        assert (payload["code"], payload["retryable"]) == ("security.locked_out", True)
        assert payload["retry_after_ms"] > 0


# Revoking


def revoke_key(key: IssuedKey, pair: IssuedTokens) -> None:
    services.revoke_api_key(api_key=key.api_key)


def revoke_token(key: IssuedKey, pair: IssuedTokens) -> None:
    services.revoke_token(token=pair.refresh, trace_id="")


def disable_account(key: IssuedKey, pair: IssuedTokens) -> None:
    account = Account.objects.get(pk=key.api_key.account_id)
    account.is_active = False
    services.save_account(account=account)


def revoke_sessions(key: IssuedKey, pair: IssuedTokens) -> None:
    operator = get_account_principal(account=create_operator())
    for session in Session.objects.filter(account=key.api_key.account_id):
        services.revoke_session(session_id=session.id, principal=operator, trace_id="")


@pytest.mark.parametrize(
    ("revoke", "shown", "is_closed"),
    [
        (revoke_key, "api_key", True),
        (revoke_key, "jwt", True),
        (revoke_token, "jwt", True),
        (revoke_token, "api_key", False),
        (disable_account, "api_key", True),
        (disable_account, "jwt", True),
        (revoke_sessions, "api_key", True),
    ],
)
async def test_what_is_revoked_closes_its_connection_and_no_other(
    revoke: Callable[[IssuedKey, IssuedTokens], None], shown: str, is_closed: bool
) -> None:
    key, other = await ask(issue_key), await ask(issue_key)
    pair = await ask(issue_tokens, key=key)
    async with open_socket() as (socket, serving), open_socket() as (others, _):
        credentials = {"key": key.secret} if shown == "api_key" else {"token": pair.access}
        await authenticate(socket, method=shown, **credentials)
        await authenticate(others, method="api_key", key=other.secret)
        await ask(revoke, key, pair)
        if is_closed:
            assert await wait_closed(socket) == REVOKED
            await serving
            session = await ask(Session.objects.get, account=key.api_key.account_id)
            assert session.close_code == REVOKED
        else:
            await revocations.look_again(get_hub().links)
            assert await ping(socket) == "response"
        assert await ping(others) == "response"


async def test_changed_rights_count_on_an_open_connection() -> None:
    account = await ask(create_service)
    secret = (await ask(issue_key, account=account)).secret

    async def try_listing(socket: ServerSocket) -> str:
        answer = await socket.receive_answer(socket.send_command("tools.list"))
        return str(answer["payload"].get("code", answer["type"]))

    async with open_socket() as (socket, _):
        await authenticate(socket, method="api_key", key=secret)
        assert await try_listing(socket) == "response"
        role = await ask(create_role, grants=[deny("tools.*")])
        await ask(account.roles.add, role)
        await revocations.look_again(get_hub().links)
        assert await try_listing(socket) == "security.access_denied"
        await ask(account.roles.remove, role)
        await revocations.look_again(get_hub().links)
        assert await try_listing(socket) == "response"


async def test_a_revoked_session_is_told_so_also_by_the_sign_of_life() -> None:
    """The quarter of a minute's look may come before the mark's."""
    secret = (await ask(issue_key)).secret
    async with open_socket() as (socket, serving):
        payload = (await authenticate(socket, method="api_key", key=secret))["payload"]
        # Without the mark, as if it had not been looked at yet.
        await ask(sessions.end_session, session_id=uuid.UUID(payload["session_id"]), close_code=REVOKED)
        get_hub()._last_seen -= SEEN_INTERVAL_SECONDS
        assert await wait_closed(socket) == REVOKED
        await serving


async def test_an_idle_look_is_one_query_however_many_connections() -> None:
    keys = [(await ask(issue_key)).secret for _ in range(3)]
    async with open_socket() as (first, _), open_socket() as (second, _), open_socket() as (third, _):
        for socket, secret in zip((first, second, third), keys, strict=True):
            await authenticate(socket, method="api_key", key=secret)
        # Its own looks would be counted too.
        await get_hub().stop()
        asked = CountingAuthenticator(ports.get_authenticator())
        ports.bind(authenticator=asked, authorizer=ports.get_authorizer())
        try:
            await revocations.look_again(get_hub().links)
            assert asked.calls == ["get_mark"]
            await ask(services.move_revocation_mark)
            await revocations.look_again(get_hub().links)
            assert asked.calls[1:] == ["get_mark", "renew 3"]
        finally:
            ports.bind(authenticator=asked.real, authorizer=ports.get_authorizer())


async def test_nobody_is_asked_without_connections() -> None:
    asked = CountingAuthenticator(ports.get_authenticator())
    ports.bind(authenticator=asked, authorizer=ports.get_authorizer())
    try:
        await revocations.look_again([])
    finally:
        ports.bind(authenticator=asked.real, authorizer=ports.get_authorizer())
    assert asked.calls == []


# Authenticating again, and the end


def shorten(key: IssuedKey, *, seconds: float) -> None:
    """Have the key end so soon."""
    ApiKey.objects.filter(pk=key.api_key.pk).update(expires_at=timezone.now() + timedelta(seconds=seconds))


async def test_authenticating_again_renews_and_is_for_the_same_account_only() -> None:
    key, other = await ask(issue_key), await ask(issue_key)
    first = await ask(issue_tokens, key=key)
    second = await ask(services.refresh_tokens, refresh_token=first.refresh, remote_address=None, trace_id="")
    async with open_socket() as (socket, _):
        answer = await authenticate(socket, method="jwt", token=first.access)
        again = await show(socket, method="jwt", token=second.access)
        assert again["payload"]["session_id"] == answer["payload"]["session_id"]
        assert again["payload"]["expires_at"] >= answer["payload"]["expires_at"]
        refused = await show(socket, method="api_key", key=other.secret)
        assert refused["payload"]["code"] == "security.authentication_failed"
        assert await ping(socket) == "response"
        lasting = await show(socket, method="api_key", key=key.secret)
        assert lasting["payload"]["expires_at"] is None
        # What it showed at first no longer matters.
        await ask(services.revoke_token, token=first.access, trace_id="")
        await revocations.look_again(get_hub().links)
        assert await ping(socket) == "response"


async def test_who_ends_soon_is_told_at_once_and_once() -> None:
    key = await ask(issue_key)
    await ask(shorten, key, seconds=50)
    async with open_socket() as (socket, _):
        answer = await authenticate(socket, method="api_key", key=key.secret)
        event = (await socket.receive())["payload"]
        assert event == {"event": "session.token_expiring", "data": {"expires_at": answer["payload"]["expires_at"]}}
        link = next(iter(get_hub().links))
        get_hub().keep_expiry(link)
        # The next message is the ping's answer: it was not told again.
        ping_id = socket.send_command("session.ping")
        assert (await socket.receive())["metadata"]["correlation_id"] == ping_id


async def test_at_the_end_commands_are_refused_until_it_is_renewed_or_closed() -> None:
    get_hub().expiry_times = ExpiryTimes(warning=timedelta(seconds=60), closing=timedelta(seconds=30))
    key = await ask(issue_key)
    await ask(shorten, key, seconds=0.3)
    lasting = await ask(issue_key, account=key.api_key.account)
    async with open_socket() as (socket, _):
        await authenticate(socket, method="api_key", key=key.secret)
        started = time.monotonic()
        while await ping(socket) == "response":
            assert time.monotonic() - started < 10
            await asyncio.sleep(0.01)
        assert await ping(socket) == "security.token_expired"
        await show(socket, method="api_key", key=lasting.secret)
        assert await ping(socket) == "response"


async def test_some_time_after_its_end_the_connection_closes() -> None:
    get_hub().expiry_times = ExpiryTimes(warning=timedelta(seconds=60), closing=timedelta(seconds=0.2))
    key = await ask(issue_key)
    await ask(shorten, key, seconds=0.2)
    async with open_socket() as (socket, serving):
        await authenticate(socket, method="api_key", key=key.secret)
        assert await wait_closed(socket) == TOKEN_EXPIRED
        await serving
    assert (await ask(Session.objects.get)).close_code == TOKEN_EXPIRED
