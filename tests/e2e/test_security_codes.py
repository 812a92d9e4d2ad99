"""Every code of the category *security* at every door: how it comes about, and all that is told, kept and left of it.

A code without a row for a door fails; where a door cannot have it, the row says what comes instead.
"""

from __future__ import annotations

import html
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pytest

from protocol.errors import get_error_table
from security.domain.lockout import PAIR_ALLOWANCE
from tests.client import Client, Message
from tests.e2e.security_codes import (
    GUARDED,
    PASSWORD,
    Ground,
    SealedClient,
    Told,
    find_notice,
    make_keys,
    make_message,
    read_payload,
    run,
)
from tests.sealing import SigningKey
from tests.services import Product, run_product

pytestmark = pytest.mark.xdist_group("security-codes")

COUNT = "text.count_words"
INPUT = {"tool": COUNT, "input": {"text": "a"}, "mode": "queue"}
REQUESTS_PER_MINUTE = 40


class Door(Enum):
    WEBSOCKET = "websocket"
    HTTP = "http"
    CONSOLE = "console"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a provocation brought about."""

    told: Told
    client: Client | None = None
    """The socket, still open; ``None``: the case saw itself that it goes on."""
    key: str = ""
    """With which it goes on; empty: with none, for now."""


Provoke = Callable[[Ground, AsyncExitStack], Awaitable[Seen]]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One code at one door."""

    code: str
    door: Door
    provoke: Provoke
    name: str
    instead: str | None = None
    """What comes in its place, where the door cannot have it."""
    close: int | None = None
    """With what the socket closes then; ``None``: it goes on as before."""
    tells_when: bool = False
    """Whether ``retry_after_ms`` is there."""


ROWS: list[Row] = []
DENIED: dict[str, str] = {}
"""What was told, by the address that it was told to; filled by the cases."""


def row(
    code: str, door: Door, *, instead: str | None = None, close: int | None = None, tells_when: bool = False
) -> Callable[[Provoke], Provoke]:
    """Make the function a row of the table."""

    def add(provoke: Provoke) -> Provoke:
        name = f"{code.partition('.')[2]}-{door.value}-{provoke.__name__.strip('_')}"
        ROWS.append(
            Row(
                code=code,
                door=door,
                provoke=provoke,
                name=name,
                instead=instead,
                close=close,
                tells_when=tells_when,
            )
        )
        return provoke

    return add


def see(message: Message, client: Client, key: str) -> Seen:
    assert message.type == "error", message
    return Seen(told=read_payload(message.payload), client=client, key=key)


# Who somebody is


@row("security.authentication_required", Door.WEBSOCKET)
async def a_command_before_it(ground: Ground, stack: AsyncExitStack) -> Seen:
    client = await stack.enter_async_context(ground.connect())
    return see((await client.call("session.ping")).terminal, client, ground.product.agent_api_key)


@row("security.authentication_required", Door.HTTP)
async def a_request_of_nobody(ground: Ground, _stack: AsyncExitStack) -> Seen:
    told = await ground.request("GET", "tools/")
    assert told.headers["www-authenticate"].startswith("Bearer")
    return Seen(told=told)


@row("security.authentication_required", Door.HTTP)
async def a_message_of_nobody(ground: Ground, _stack: AsyncExitStack) -> Seen:
    return Seen(told=await ground.post_message("session.ping"))


@row("security.authentication_failed", Door.WEBSOCKET)
async def a_wrong_key(ground: Ground, stack: AsyncExitStack) -> Seen:
    client = await stack.enter_async_context(ground.connect())
    return see(await client.authenticate("mcp_" + "x" * 43), client, ground.product.agent_api_key)


@row("security.authentication_failed", Door.WEBSOCKET)
async def another_accounts_key_on_a_live_connection(ground: Ground, stack: AsyncExitStack) -> Seen:
    key = ground.keys["renewing"]
    client = await stack.enter_async_context(ground.open_session(key))
    return see(await client.authenticate(ground.product.agent_api_key), client, key)


@row("security.authentication_failed", Door.HTTP)
async def a_wrong_bearer(ground: Ground, _stack: AsyncExitStack) -> Seen:
    return Seen(told=await ground.request("GET", "tools/", key="mcp_" + "x" * 43))


@row("security.authentication_failed", Door.HTTP)
async def a_wrong_token_in_a_message(ground: Ground, _stack: AsyncExitStack) -> Seen:
    return Seen(told=await ground.post_message("session.ping", security={"auth_token": "a.b.c"}))


@row("security.authentication_failed", Door.HTTP)
async def a_wrong_password(ground: Ground, _stack: AsyncExitStack) -> Seen:
    body = {"username": "operator", "password": "wrong"}
    return Seen(told=await ground.request("POST", "auth/token/", body=body))


@row("security.token_expired", Door.WEBSOCKET)
async def a_key_that_ends_meanwhile(ground: Ground, stack: AsyncExitStack) -> Seen:
    keys = run(ground.product, "account, key = make('codes-expiring', lasts_seconds=4)\ntell = [key, issue(account)]")
    client = await stack.enter_async_context(ground.open_session(keys[0]))
    while True:
        # The end comes by itself; a command, and one that no limit counts, is all that tells of it at once.
        answer = await client.call("command.cancel", {"id": "m-0"})
        if answer.terminal.type == "error":
            return see(answer.terminal, client, keys[1])


@row("security.token_expired", Door.HTTP, instead="security.authentication_failed")
async def a_key_that_has_ended(ground: Ground, _stack: AsyncExitStack) -> Seen:
    # There is no connection that it once opened: each request shows its credential anew, and none is told why not.
    while True:
        told = await ground.request("GET", "tools/?limit=1", key=ground.keys["ended"])
        if told.status != 200:
            return Seen(told=told)


@row("security.token_revoked", Door.WEBSOCKET, instead="security.authentication_failed")
async def a_revoked_token(ground: Ground, stack: AsyncExitStack) -> Seen:
    # A socket takes no refresh tokens, which alone are told; an open connection by it is closed with 4403.
    client = await stack.enter_async_context(ground.connect())
    return see(await client.show(method="jwt", token=ground.keys["revoked access"]), client, ground.keys["agent"])


@row("security.token_revoked", Door.HTTP)
async def a_refresh_token_that_was_revoked(ground: Ground, _stack: AsyncExitStack) -> Seen:
    refresh = ground.keys["revoked refresh"]
    return Seen(told=await ground.request("POST", "auth/refresh/", body={"refresh": refresh}))


@row("security.token_revoked", Door.HTTP)
async def a_refresh_token_that_was_used(ground: Ground, _stack: AsyncExitStack) -> Seen:
    refresh = ground.keys["refresh"]
    assert (await ground.request("POST", "auth/refresh/", body={"refresh": refresh})).status == 200
    return Seen(told=await ground.request("POST", "auth/refresh/", body={"refresh": refresh}))


@row("security.locked_out", Door.WEBSOCKET, tells_when=True)
async def too_many_wrong_passwords(ground: Ground, stack: AsyncExitStack) -> Seen:
    client = await stack.enter_async_context(ground.connect())
    for _ in range(PAIR_ALLOWANCE.attempts):
        refused = await client.show(method="password", username="operator", password="wrong")
        assert refused.code == "security.authentication_failed"
    # The right one is not looked at either; a key is.
    right = {"username": "operator", "password": ground.product.operator_password}
    return see(await client.show(method="password", **right), client, ground.product.agent_api_key)


@row("security.locked_out", Door.HTTP, tells_when=True)
async def too_many_wrong_passwords_for_tokens(ground: Ground, _stack: AsyncExitStack) -> Seen:
    body = {"username": "operator", "password": "wrong"}
    for _ in range(PAIR_ALLOWANCE.attempts):
        assert (await ground.request("POST", "auth/token/", body=body)).code == "security.authentication_failed"
    body["password"] = ground.product.operator_password
    return Seen(told=await ground.request("POST", "auth/token/", body=body))


# What somebody may do


@row("security.access_denied", Door.WEBSOCKET)
async def a_command_without_a_right(ground: Ground, stack: AsyncExitStack) -> Seen:
    key = ground.keys["nobody"]
    client = await stack.enter_async_context(ground.open_session(key))
    return see((await client.call("tools.execute", INPUT)).terminal, client, key)


@row("security.access_denied", Door.WEBSOCKET)
async def a_command_beyond_the_keys_scopes(ground: Ground, stack: AsyncExitStack) -> Seen:
    key = ground.keys["scoped"]
    client = await stack.enter_async_context(ground.open_session(key))
    return see((await client.call("tools.execute", INPUT)).terminal, client, key)


@row("security.access_denied", Door.HTTP)
async def a_request_without_a_right(ground: Ground, _stack: AsyncExitStack) -> Seen:
    key = ground.keys["nobody"]
    return Seen(told=await ground.request("POST", f"tools/{COUNT}/execute/", key=key, body={"input": {"text": "a"}}))


@row("security.access_denied", Door.HTTP)
async def a_message_beyond_the_keys_scopes(ground: Ground, _stack: AsyncExitStack) -> Seen:
    key = ground.keys["scoped"]
    return Seen(told=await ground.post_message("tools.execute", INPUT, key=key))


@row("security.security_level_too_low", Door.WEBSOCKET)
async def a_message_below_its_connection(ground: Ground, stack: AsyncExitStack) -> Seen:
    key = ground.product.agent_api_key
    client = await stack.enter_async_context(ground.open_session(key))
    payload = {"command": "session.ping", "arguments": {}}
    message_id = await client.send("command", payload, security={"security_level": "low"})
    return see(await client.wait_for_reply(message_id), client, key)


@row("security.security_level_too_low", Door.WEBSOCKET)
async def a_tool_that_demands_more(ground: Ground, stack: AsyncExitStack) -> Seen:
    key = ground.keys["agent"]
    client = await stack.enter_async_context(ground.open_session(key))
    return see((await client.call("tools.execute", {"tool": GUARDED, "input": {}})).terminal, client, key)


@row("security.security_level_too_low", Door.HTTP)
async def a_request_for_a_tool_that_demands_more(ground: Ground, _stack: AsyncExitStack) -> Seen:
    return Seen(
        told=await ground.request("POST", f"tools/{GUARDED}/execute/", key=ground.keys["agent"], body={"input": {}})
    )


@row("security.security_level_too_low", Door.HTTP)
async def a_message_to_a_tool_that_demands_more(ground: Ground, _stack: AsyncExitStack) -> Seen:
    arguments = {"tool": GUARDED, "input": {}}
    return Seen(told=await ground.post_message("tools.execute", arguments, key=ground.keys["agent"]))


@row("security.ip_denied", Door.WEBSOCKET)
async def a_key_of_another_network(ground: Ground, stack: AsyncExitStack) -> Seen:
    client = await stack.enter_async_context(ground.connect())
    return see(await client.authenticate(ground.keys["elsewhere"]), client, ground.keys["agent"])


@row("security.ip_denied", Door.HTTP)
async def a_bearer_of_another_network(ground: Ground, _stack: AsyncExitStack) -> Seen:
    return Seen(told=await ground.request("GET", "tools/", key=ground.keys["elsewhere"]))


@row("security.ip_denied", Door.HTTP)
async def a_message_from_another_network(ground: Ground, _stack: AsyncExitStack) -> Seen:
    security = {"auth_token": ground.keys["elsewhere"]}
    return Seen(told=await ground.post_message("session.ping", security=security))


# What is sealed and signed. HTTP has neither, and says so; with a minimum level of `high` it takes no commands.

PING = {"command": "session.ping", "arguments": {}}
BROKEN = 4400
SEALED_FOR_HTTP = {"encryption_info": {"algorithm": "AES-256-GCM", "key_id": "k", "sequence": 0}}


async def see_sealed(answer: dict[str, Any], sealed: SealedClient) -> Seen:
    assert answer["type"] == "error", answer
    return Seen(told=read_payload(answer["payload"]), client=sealed.client)


@row("security.encryption_required", Door.WEBSOCKET, close=BROKEN)
async def an_open_message_among_sealed_ones(ground: Ground, stack: AsyncExitStack) -> Seen:
    sealed = await stack.enter_async_context(ground.open_sealed("high"))
    return await see_sealed(await sealed.send(make_message("command", PING)), sealed)


@row("security.encryption_required", Door.HTTP, instead="protocol.feature_not_agreed")
async def a_message_that_says_it_is_high(ground: Ground, _stack: AsyncExitStack) -> Seen:
    security = {"security_level": "high"}
    return Seen(told=await ground.post_message("session.ping", key=ground.keys["agent"], security=security))


@row("security.decryption_failed", Door.WEBSOCKET, close=BROKEN)
async def a_changed_ciphertext(ground: Ground, stack: AsyncExitStack) -> Seen:
    sealed = await stack.enter_async_context(ground.open_sealed("high"))
    envelope = sealed.sealing.seal(make_message("command", PING))
    payload = envelope["payload"]
    envelope["payload"] = ("A" if payload[0] != "A" else "B") + payload[1:]
    return await see_sealed(await sealed.send(envelope), sealed)


@row("security.decryption_failed", Door.WEBSOCKET, close=BROKEN)
async def a_sequence_that_is_ahead(ground: Ground, stack: AsyncExitStack) -> Seen:
    sealed = await stack.enter_async_context(ground.open_sealed("high"))
    return await see_sealed(await sealed.send(sealed.sealing.seal(make_message("command", PING), sequence=9)), sealed)


@row("security.decryption_failed", Door.HTTP, instead="protocol.feature_not_agreed")
async def a_sealed_message_without_keys(ground: Ground, _stack: AsyncExitStack) -> Seen:
    return Seen(
        told=await ground.post_message(
            "session.ping", key=ground.keys["agent"], payload="c2VhbGVk", security=SEALED_FOR_HTTP
        )
    )


@row("security.replayed", Door.WEBSOCKET, close=BROKEN)
async def a_sealed_frame_twice(ground: Ground, stack: AsyncExitStack) -> Seen:
    sealed = await stack.enter_async_context(ground.open_sealed("high"))
    envelope = sealed.sealing.seal(make_message("command", PING))
    assert (await sealed.send(envelope))["type"] == "response"
    return await see_sealed(await sealed.send(envelope), sealed)


@row("security.replayed", Door.WEBSOCKET)
async def a_signed_command_twice(ground: Ground, stack: AsyncExitStack) -> Seen:
    sealed = await stack.enter_async_context(ground.open_sealed("critical"))
    signed = sealed.sign(make_message("command", PING), ground.signing_key)
    assert (await sealed.exchange(signed))["type"] == "response"
    return await see_usable(await see_sealed(await sealed.exchange(signed), sealed), sealed, ground)


@row("security.replayed", Door.WEBSOCKET)
async def a_signed_command_of_another_hour(ground: Ground, stack: AsyncExitStack) -> Seen:
    sealed = await stack.enter_async_context(ground.open_sealed("critical"))
    old = {**make_message("command", PING), "timestamp": "2026-11-20T16:31:00.123Z"}
    answer = await sealed.exchange(sealed.sign(old, ground.signing_key))
    return await see_usable(await see_sealed(answer, sealed), sealed, ground)


@row("security.replayed", Door.HTTP, instead="protocol.feature_not_agreed")
async def a_signature_without_a_session(ground: Ground, _stack: AsyncExitStack) -> Seen:
    security = {"signature": "ed25519:k:c2lnbmF0dXJl"}
    return Seen(told=await ground.post_message("session.ping", key=ground.keys["agent"], security=security))


@row("security.signature_invalid", Door.WEBSOCKET)
async def a_command_that_nobody_signed(ground: Ground, stack: AsyncExitStack) -> Seen:
    sealed = await stack.enter_async_context(ground.open_sealed("critical"))
    answer = await sealed.exchange(make_message("command", PING))
    return await see_usable(await see_sealed(answer, sealed), sealed, ground)


@row("security.signature_invalid", Door.WEBSOCKET)
async def a_command_signed_by_a_strangers_key(ground: Ground, stack: AsyncExitStack) -> Seen:
    sealed = await stack.enter_async_context(ground.open_sealed("critical"))
    answer = await sealed.exchange(sealed.sign(make_message("command", PING), SigningKey()))
    return await see_usable(await see_sealed(answer, sealed), sealed, ground)


@row("security.signature_invalid", Door.HTTP, instead="protocol.feature_not_agreed")
async def a_message_that_says_it_is_critical(ground: Ground, _stack: AsyncExitStack) -> Seen:
    security = {"security_level": "critical", "signature": "ed25519:k:c2lnbmF0dXJl"}
    return Seen(told=await ground.post_message("session.ping", key=ground.keys["agent"], security=security))


async def see_usable(seen: Seen, sealed: SealedClient, ground: Ground) -> Seen:
    """What was seen, on a connection that goes on."""
    answer = await sealed.exchange(sealed.sign(make_message("command", PING), ground.signing_key))
    assert answer["type"] == "response", answer
    return Seen(told=seen.told)


@row("security.rate_limited", Door.WEBSOCKET, tells_when=True)
async def more_commands_than_a_minute_has(ground: Ground, stack: AsyncExitStack) -> Seen:
    key = ground.keys["busy too"]
    client = await stack.enter_async_context(ground.open_session(key))
    for _ in range(REQUESTS_PER_MINUTE * 2):
        answer = await client.call("session.ping")
        if answer.terminal.type == "error":
            return see(answer.terminal, client, "")
    raise AssertionError("it was never limited")


@row("security.rate_limited", Door.HTTP, tells_when=True)
async def more_requests_than_a_minute_has(ground: Ground, _stack: AsyncExitStack) -> Seen:
    key = ground.keys["busy"]
    for _ in range(REQUESTS_PER_MINUTE * 2):
        told = await ground.request("GET", "tools/?limit=1", key=key)
        if told.status != 200:
            return Seen(told=told)
    raise AssertionError("it was never limited")


# The table


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A product with limits that a test can reach."""
    variables = {"MCP_REQUESTS_PER_MINUTE": str(REQUESTS_PER_MINUTE)}
    with run_product(tmp_path_factory.mktemp("guarded") / "var", **variables) as product:
        yield product


@pytest.fixture(scope="module")
def keys(guarded: Product) -> dict[str, str]:
    return make_keys(guarded)


def list_codes() -> list[str]:
    return sorted(code for code, error in get_error_table().items() if error.category == "security")


@pytest.mark.parametrize("code", list_codes())
@pytest.mark.parametrize("door", [Door.WEBSOCKET, Door.HTTP], ids=lambda door: door.value)
def test_every_code_has_its_row(code: str, door: Door) -> None:
    assert any((found.code, found.door) == (code, door) for found in ROWS)


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.name)
async def test_a_row_holds(case: Row, guarded: Product, keys: dict[str, str]) -> None:
    ground = Ground(product=guarded, address=f"127.3.{ROWS.index(case) + 1}.1", keys=keys)
    async with AsyncExitStack() as stack:
        seen = await case.provoke(ground, stack)
        error = get_error_table()[case.instead or case.code]
        if error.category == "security":
            DENIED[ground.address] = error.code
        assert seen.told.code == error.code
        assert seen.told.retryable == error.retryable
        assert (seen.told.retry_after_ms is not None) == case.tells_when
        assert len(seen.told.trace_id) == 32
        if case.door is Door.HTTP:
            assert seen.told.status == error.http_status
            return
        if seen.client is None:
            assert case.close is None
            return
        if case.close is not None:
            assert await seen.client.wait_closed() == case.close
            return
        if not seen.key:
            # Nothing but time helps; the connection is there to be told so.
            assert (await seen.client.call("session.ping")).code == error.code
            return
        # It is refused, not broken: who shows the right thing goes on.
        assert (await seen.client.authenticate(seen.key)).type == "authentication"
        await seen.client.check_usable()


def test_every_denial_is_on_record(guarded: Product) -> None:
    """After the rows: who comes from an address of one case alone left an event with its code."""
    script = """
events = AuditEvent.objects.filter(action="access.deny")
tell = [[event.outcome, json.loads(event.data_json)] for event in events]
"""
    events = run(guarded, script)
    assert DENIED
    for address, code in DENIED.items():
        found = [
            event
            for event in events
            if address in (event[1].get("address"), *event[1].get("addresses", ()))
            and code in (event[0], *event[1].get("codes", ()))
        ]
        assert found, f"{code} to {address} left no event"


# The console, whose answers are pages


async def test_the_console_sends_nobody_in(guarded: Product) -> None:
    async with Ground(product=guarded, address="127.4.0.1", keys={}).open_http() as client:
        answer = await client.get("admin/tools/tool/")
        assert answer.status_code == 302
        assert answer.headers["location"].startswith("/admin/login/")
        assert (await client.post("admin/tools/tool/")).status_code in {302, 403}


async def test_the_console_tells_of_a_wrong_password_and_of_a_lock_out(guarded: Product) -> None:
    ground = Ground(product=guarded, address="127.4.0.2", keys={})
    for _ in range(PAIR_ALLOWANCE.attempts):
        answer, cookies = await ground.sign_in_to_console("operator", "wrong")
        assert answer.status_code == 200
        assert "mcp_session" not in cookies
    answer, cookies = await ground.sign_in_to_console("operator", guarded.operator_password)
    assert "Try again in" in html.unescape(find_notice(answer.text))
    assert "mcp_session" not in cookies


@pytest.mark.usefixtures("keys")
async def test_the_console_refuses_staff_without_a_role(guarded: Product) -> None:
    ground = Ground(product=guarded, address="127.4.0.3", keys={})
    answer, cookies = await ground.sign_in_to_console("codes-staff", PASSWORD)
    assert answer.status_code == 302
    async with ground.open_http() as client:
        client.cookies.update(cookies)
        for address in ("security/account/", "security/role/", "security/auditevent/", "tools/execution/"):
            assert (await client.get(f"admin/{address}")).status_code == 403, address
