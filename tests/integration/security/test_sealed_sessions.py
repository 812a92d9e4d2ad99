"""Levels ``high`` and ``critical`` over the consumer: who may use them, what is signed, and what is kept of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import msgspec
import pytest
from channels.layers import get_channel_layer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.test import AsyncClient

from protocol import consumers
from protocol.database_threads import get_database_threads
from protocol.domain.addresses import is_loopback
from protocol.domain.messages import SecurityLevel
from protocol.domain.sealed import DEFAULT_REKEY_LIMITS, RekeyLimits
from protocol.hub import get_hub
from protocol.models import Session
from security import services
from security.models import Account, AuditEvent, CommandKey
from tests.asgi import ServerSocket, open_socket
from tests.client import Encoding
from tests.factories import create_service, issue_key
from tests.sealing import ClientSealing, SigningKey, from_base64url, make_command

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("valkey_url")]

T = TypeVar("T")
ENCODINGS = pytest.mark.parametrize("encoding", list(Encoding), ids=lambda encoding: encoding.value)


@pytest.fixture(autouse=True)
async def _end_hub() -> AsyncIterator[None]:
    yield
    await get_hub().stop()
    layer = get_channel_layer()
    assert layer is not None
    await layer.flush()


async def ask(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Ask the database, which no coroutine may do itself."""
    return await get_database_threads().run(function, *args, **kwargs)


class SealedSocket:
    """A client at a sealed level, at the other end of the consumer."""

    def __init__(self, socket: ServerSocket, sealing: ClientSealing) -> None:
        self.socket = socket
        self.sealing = sealing
        self.session_id = ""

    async def shake_hands(self, **request: Any) -> dict[str, Any]:
        """The payload of the answer; where it is no error, everything is sealed from then on."""
        await self.socket.receive_raw()  # websocket.accept
        payload = {
            "protocol_versions": ["1.1"],
            "client": {"name": "test"},
            "security_level": self.sealing.level,
            "key_agreement": self.sealing.make_offer(),
            **request,
        }
        frame = self.sealing.encode({**make_command(message_id="h-1"), "type": "handshake", "payload": payload})
        self.socket.send_frame(frame)
        answer_frame = await self.socket.receive_frame()
        self.sealing.frames = [frame, answer_frame]
        answer: dict[str, Any] = self.sealing.decode(answer_frame)["payload"]
        if "key_agreement" in answer:
            self.sealing.agree(request=frame, answer=answer["key_agreement"], connection_id=answer["connection_id"])
        return answer

    def send(self, message: dict[str, Any], **how: Any) -> None:
        self.socket.send_frame(self.sealing.encode(self.sealing.seal(message, **how)))

    async def receive(self) -> dict[str, Any]:
        return self.sealing.open(await self.socket.receive_frame())

    async def ask(self, message: dict[str, Any], **how: Any) -> dict[str, Any]:
        """Send it and wait for its answer; events are passed over."""
        self.send(message, **how)
        while True:
            answer = await self.receive()
            if answer["type"] != "event" and (answer["metadata"] or {}).get("correlation_id") == message["id"]:
                return answer

    async def authenticate(self, key: str) -> dict[str, Any]:
        message = {**make_command(message_id="a-1"), "type": "authentication"}
        answer = await self.ask({**message, "payload": {"method": "api_key", "key": key}})
        payload: dict[str, Any] = answer["payload"]
        self.session_id = payload.get("session_id", "")
        return payload

    def sign(self, message: dict[str, Any], key: SigningKey, **how: Any) -> dict[str, Any]:
        """The message with its signature."""
        how = {"session_id": self.session_id, **how}
        return {**message, "security": {"signature": self.sealing.sign(message, key=key, **how)}}


@asynccontextmanager
async def open_sealed(
    *, encoding: Encoding = Encoding.JSON, level: str = "high", key: str | None = None
) -> AsyncIterator[SealedSocket]:
    """A sealed connection; with ``key`` it is authenticated."""
    async with open_socket(subprotocols=[encoding.value]) as (socket, _):
        client = SealedSocket(socket, ClientSealing(encoding, level=level))
        if key is not None:
            await client.shake_hands()
            assert (await client.authenticate(key))["authenticated"]
        yield client


def make_signer(signing_key: SigningKey) -> tuple[Account, str, CommandKey]:
    """An account that may sign with the key, its API key, and the registered key."""
    account = create_service()
    services.save_account(account=set_level(account, SecurityLevel.CRITICAL))
    row = services.register_command_key(account=account, public_key=signing_key.public_key, label="test")
    return account, issue_key(account=account).secret, row


def set_level(account: Account, level: SecurityLevel) -> Account:
    account.security_level_max = level.value
    return account


@ENCODINGS
async def test_a_session_at_high(encoding: Encoding) -> None:
    key = (await ask(issue_key)).secret
    async with open_sealed(encoding=encoding) as client:
        assert (await client.shake_hands())["security_level"] == "high"
        answer = await client.authenticate(key)
        assert answer["handshake_sha256"] == hashlib.sha256(b"".join(client.sealing.frames)).hexdigest()
        assert answer["security_level_max"] == "high"
        assert (await client.ask(make_command()))["payload"]["command"] == "session.ping"
        listed = await client.ask(make_command("tools.list", message_id="c-2"))
        assert listed["payload"]["result"]["next_cursor"] is None
        refused = await client.ask(make_command("no.such", message_id="c-3"))
        assert refused["payload"]["code"] == "protocol.unknown_command"
        session = await ask(Session.objects.get, id=client.session_id)
        assert session.security_level == "high"
        bye = await client.ask(make_command("session.close", message_id="c-4"))
        assert bye["type"] == "response"
        assert (await client.socket.receive_raw())["code"] == 1000


@pytest.mark.parametrize("account_max", ["low", "standard"])
async def test_an_account_goes_no_higher_than_it_may(account_max: str) -> None:
    account = await ask(create_service)
    key = (await ask(issue_key, account=account)).secret
    await ask(services.save_account, account=set_level(account, SecurityLevel(account_max)))
    async with open_sealed() as client:
        await client.shake_hands()
        refused = await client.authenticate(key)
        assert (refused["code"], refused["details"]["security_level_max"]) == ("security.access_denied", account_max)
        other = (await ask(issue_key)).secret
        assert (await client.authenticate(other))["authenticated"]


async def test_without_a_registered_key_an_account_does_not_go_to_critical() -> None:
    account = await ask(create_service)
    key = (await ask(issue_key, account=account)).secret
    await ask(services.save_account, account=set_level(account, SecurityLevel.CRITICAL))
    async with open_sealed(level="critical") as client:
        await client.shake_hands()
        refused = await client.authenticate(key)
        assert (refused["code"], refused["details"]["security_level_max"]) == ("security.access_denied", "high")


async def test_a_lowered_account_loses_its_connection_within_a_second() -> None:
    account = await ask(create_service)
    key = (await ask(issue_key, account=account)).secret
    async with open_sealed(key=key) as client:
        await ask(services.save_account, account=set_level(account, SecurityLevel.STANDARD))
        async with asyncio.timeout(1.0):
            assert (await client.socket.receive_raw())["code"] == 4403


@ENCODINGS
async def test_the_signature_is_kept_with_what_the_command_did(encoding: Encoding) -> None:
    signing_key = SigningKey()
    account, key, row = await ask(make_signer, signing_key)
    async with open_sealed(encoding=encoding, level="critical", key=key) as client:
        message = make_command("ports.allocate", {"purpose": "test"}, metadata={"timeout_ms": 5000})
        answer = await client.ask(client.sign(message, signing_key))
        assert answer["type"] == "response", answer
        event = await ask(AuditEvent.objects.get, action="ports.allocate")
        evidence = json.loads(event.data_json)["evidence"]
        assert event.actor_id == account.id
        assert evidence["session_id"] == client.session_id
        assert evidence["payload_sha256"] == hashlib.sha256(client.sealing.encode(message["payload"])).hexdigest()
        check_evidence(evidence, row.public_key)
        # An act of nobody's signature carries none.
        await ask(services.revoke_command_key, command_key=row)
        revoked = await ask(AuditEvent.objects.get, action="command_keys.revoke")
        assert "evidence" not in json.loads(revoked.data_json)


def check_evidence(evidence: dict[str, str], public_key: str) -> None:
    """As the how-to page verifies it, without the server."""
    names = ("session_id", "id", "type", "timestamp", "security_level", "payload_sha256", "metadata_sha256")
    lines = "".join(f"{line}\n" for line in ("mcp1.1-signature", *(evidence[name] for name in names)))
    signature = from_base64url(evidence["signature"].split(":")[2])
    Ed25519PublicKey.from_public_bytes(from_base64url(public_key)).verify(signature, lines.encode())


def get_time(seconds: float) -> str:
    """So many seconds from now, as the wire has it."""
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


NOW = get_time(0)
Sign = Callable[[SealedSocket, SigningKey], dict[str, Any]]
WRONGLY_SIGNED: dict[str, tuple[Sign, str]] = {
    "not at all": (lambda _client, _key: make_command(), "security.signature_invalid"),
    "no signature": (lambda _c, _k: {**make_command(), "security": {"signature": "x"}}, "security.signature_invalid"),
    "another's key": (lambda client, _key: client.sign(make_command(), SigningKey()), "security.signature_invalid"),
    "another session": (
        lambda client, key: client.sign(make_command(), key, session_id="other"),
        "security.signature_invalid",
    ),
    "another level": (
        lambda client, key: client.sign(make_command(), key, level="high"),
        "security.signature_invalid",
    ),
    "another payload": (
        lambda client, key: {**client.sign(make_command(timestamp=NOW), key), "payload": {"command": "session.status"}},
        "security.signature_invalid",
    ),
    "another id": (
        lambda client, key: {**client.sign(make_command(), key), "id": "c-9"},
        "security.signature_invalid",
    ),
    "added metadata": (
        lambda client, key: {**client.sign(make_command(), key), "metadata": {"priority": "urgent"}},
        "security.signature_invalid",
    ),
    "too old": (lambda client, key: client.sign(make_command(timestamp=get_time(-62)), key), "security.replayed"),
    "too new": (lambda client, key: client.sign(make_command(timestamp=get_time(62)), key), "security.replayed"),
}


@ENCODINGS
async def test_what_is_wrongly_signed_is_refused_and_the_connection_goes_on(encoding: Encoding) -> None:
    signing_key = SigningKey()
    _, key, _ = await ask(make_signer, signing_key)
    async with open_sealed(encoding=encoding, level="critical", key=key) as client:
        for name, (make, code) in WRONGLY_SIGNED.items():
            message = make(client, signing_key)
            answer = await client.ask(message)
            assert answer["payload"].get("code") == code, name
        good = client.sign(make_command(message_id="good", timestamp=get_time(-55)), signing_key)
        assert (await client.ask(good))["type"] == "response"


async def test_a_signed_command_is_taken_once() -> None:
    signing_key = SigningKey()
    _, key, _ = await ask(make_signer, signing_key)
    async with open_sealed(level="critical", key=key) as client:
        signed = client.sign(make_command(), signing_key)
        assert (await client.ask(signed))["type"] == "response"
        # Sealed anew, as who holds the connection's keys could, but not signed anew.
        assert (await client.ask(signed))["payload"]["code"] == "security.replayed"
        again = client.sign(make_command(timestamp=get_time(1)), signing_key)
        assert (await client.ask(again))["type"] == "response"
        async with open_sealed(level="critical", key=key) as other:
            assert (await other.ask(signed))["payload"]["code"] == "security.signature_invalid"


async def test_a_revoked_key_signs_no_more_and_the_last_one_ends_the_connection() -> None:
    first, second = SigningKey(), SigningKey()
    account, key, row = await ask(make_signer, first)
    async with open_sealed(level="critical", key=key) as client:
        other = await ask(services.register_command_key, account=account, public_key=second.public_key, label="2")
        await wait_for_code(client, second, None)
        await ask(services.revoke_command_key, command_key=row)
        await wait_for_code(client, first, "security.signature_invalid")
        await ask(services.revoke_command_key, command_key=other)
        async with asyncio.timeout(1.0):
            assert (await client.socket.receive_raw())["code"] == 4403


async def wait_for_code(client: SealedSocket, key: SigningKey, code: str | None) -> None:
    """Until what the key signs is answered so: within a second."""
    async with asyncio.timeout(1.5):
        for number in range(1_000):
            message = make_command(message_id=f"w-{number}-{code}-{key.key_id[:8]}")
            answer = await client.ask(client.sign(message, key))
            if answer["payload"].get("code") == code:
                return
            await asyncio.sleep(0.02)


@ENCODINGS
async def test_what_does_not_open_is_answered_and_closes_with_4400(encoding: Encoding) -> None:
    key = (await ask(issue_key)).secret
    async with open_sealed(encoding=encoding, key=key) as client:
        client.socket.send_frame(client.sealing.encode(make_command()))
        # Behind it, and good: nobody looks at it any more.
        client.send(make_command(message_id="c-2"))
        answer = await client.receive()
        assert answer["payload"]["code"] == "security.encryption_required"
        assert answer["metadata"] == {"correlation_id": "c-1"}
        assert (await client.socket.receive_raw())["code"] == 4400
    denial = await ask(AuditEvent.objects.filter(outcome="security.encryption_required").exists)
    assert denial


async def test_new_keys_are_asked_for_and_used() -> None:
    key = (await ask(issue_key)).secret
    hub = get_hub()
    hub.rekey_limits = RekeyLimits(messages=10, seconds=DEFAULT_REKEY_LIMITS.seconds)
    async with open_sealed(key=key) as client:
        for number in range(10):
            await client.ask(make_command(message_id=f"p-{number}"))
        event = await client.receive()
        assert event["payload"]["event"] == "session.rekey_due"
        assert client.sealing.keys is not None
        assert event["payload"]["data"] == {"key_id": client.sealing.keys.key_id}
        offer = {"key_agreement": client.sealing.make_offer()}
        request = {**make_command(message_id="r-1"), "type": "handshake", "payload": offer}
        frame = client.sealing.encode(client.sealing.seal(request))
        client.socket.send_frame(frame)
        answer = await client.receive()
        client.sealing.agree(request=frame, answer=answer["payload"]["key_agreement"])
        assert (await client.ask(make_command(message_id="c-2")))["type"] == "response"


@pytest.fixture
def minimum(settings: Any) -> Iterator[Callable[[str], None]]:
    """Set the server's minimum level for this test."""

    def change(level: str) -> None:
        settings.MCP = msgspec.structs.replace(settings.MCP, minimum_security_level=level)
        consumers.get_terms.cache_clear()

    yield change
    consumers.get_terms.cache_clear()


async def test_the_servers_minimum_raises_every_connection(minimum: Callable[[str], None]) -> None:
    minimum("high")
    async with open_socket() as (socket, _):
        await socket.receive_raw()
        payload = {"protocol_versions": ["1.1"], "client": {"name": "test"}, "security_level": "standard"}
        refused = await socket.receive_answer(socket.send("handshake", payload))
        assert refused["payload"]["code"] == "security.encryption_required"
    key = (await ask(issue_key)).secret
    async with open_sealed() as client:
        assert (await client.shake_hands(security_level="standard"))["security_level"] == "high"
        assert (await client.authenticate(key))["authenticated"]


NO_COMMANDS = ("/api/v1/auth/", "/api/v1/openapi", "/.well-known/", "/api/v1/messages/")
"""What is asked by HTTP that is no command, credentials and what anybody may read; and messages, which tell inside."""


async def test_below_the_servers_minimum_no_door_of_http_takes_a_command(minimum: Callable[[str], None]) -> None:
    minimum("high")
    client, headers = AsyncClient(), {"Authorization": f"Bearer {(await ask(issue_key)).secret}"}
    document = (await client.get("/api/v1/openapi.json")).json()
    told: dict[str, str] = {}
    for path, methods in document["paths"].items():
        if path.startswith(NO_COMMANDS) or path == "/api/v1/":
            continue
        filled = re.sub(r"\{[^}]+\}", "0198c5a1-7f3e-7c44-9d55-3f2f6a1c8e10", path)
        for method in set(methods) & {"get", "post", "put", "patch", "delete"}:
            body = {} if method == "get" else {"data": "{}", "content_type": "application/json"}
            answer = await getattr(client, method)(filled, headers=headers, **body)
            told[f"{method} {path}"] = answer.json()["code"]
    message = {**make_command(message_id="m-1"), "payload": {"command": "session.ping"}}
    data = json.dumps(message)
    answer = await client.post("/api/v1/messages/", data, content_type="application/json", headers=headers)
    told["a message"] = answer.json()["payload"]["code"]
    assert len(told) > 10
    assert set(told.values()) == {"security.security_level_too_low"}, told


@pytest.mark.parametrize(
    ("address", "level"),
    [("127.0.0.1", "low"), ("::1", "low"), ("::ffff:127.0.0.1", "low"), ("192.0.2.1", "standard"), ("::2", "standard")],
)
async def test_low_is_for_the_servers_own_machine(minimum: Callable[[str], None], address: str, level: str) -> None:
    minimum("low")
    terms = consumers.get_terms(is_local=is_loopback(address))
    assert terms.minimum_level.value == level
