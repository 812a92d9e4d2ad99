"""What provokes the security codes: accounts, and three doors, each case coming from an address of its own."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.client import WAIT_SECONDS, Client, get_timestamp, open_client
from tests.sealing import ClientSealing, SigningKey, from_base64url
from tests.services import Product

PASSWORD = "a long password of the tests"  # of accounts that only these tests have
GUARDED = "files.list"
"""A tool that demands the level `high`."""

_BEGIN = """
import json
from datetime import timedelta
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.utils import timezone
from protocol.domain.base64url import encode_base64url
from protocol.domain.messages import ApiKeyCredentials
from protocol.ports import get_authenticator
from security import services
from security.models import Account, ApiKey, AuditEvent
from tools.models import Tool

def make(name, roles=("agent",), scopes=(), lasts_seconds=None):
    account = services.create_account(username=name, kind=Account.Kind.SERVICE, roles=list(roles))
    return account, issue(account, scopes, lasts_seconds)

def issue(account, scopes=(), lasts_seconds=None):
    expires_at = None if lasts_seconds is None else timezone.now() + timedelta(seconds=lasts_seconds)
    return services.issue_api_key(account=account, name="codes", scopes=list(scopes), expires_at=expires_at).secret

def sign_in(key):
    principal = get_authenticator().authenticate(credentials=ApiKeyCredentials(key), remote_address=None)
    return services.issue_tokens(principal=principal, remote_address=None, trace_id="")

"""

_MAKE_KEYS = """
tell = {
    "agent": make("codes-agent")[1],
    "renewing": make("codes-renewing")[1],
    "busy": make("codes-busy")[1],
    "busy too": make("codes-busy-too")[1],
    "elsewhere": make("codes-elsewhere")[1],
    "nobody": make("codes-nobody", roles=())[1],
    "scoped": make("codes-scoped", scopes=("tools.view",))[1],
    "ended": make("codes-ended", lasts_seconds=1)[1],
}
account, tell["critical"] = make("codes-critical")
Account.objects.filter(id=account.id).update(security_level_max="critical")
signing_key = Ed25519PrivateKey.generate()
services.register_command_key(
    account=account, public_key=encode_base64url(signing_key.public_key().public_bytes_raw()), label="codes"
)
tell["signing"] = encode_base64url(signing_key.private_bytes_raw())
pair = sign_in(tell["agent"])
services.revoke_token(token=pair.refresh, trace_id="")
tell |= {"revoked access": pair.access, "revoked refresh": pair.refresh, "refresh": sign_in(tell["agent"]).refresh}
services.create_account(username="codes-staff", password=PASSWORD, is_staff=True, roles=[])
ApiKey.objects.filter(account__username="codes-elsewhere").update(networks=["10.0.0.0/8"])
Tool.objects.filter(name=GUARDED).update(minimum_level="high")
"""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a door answered."""

    code: str
    status: int | None = None
    retryable: bool = False
    retry_after_ms: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    trace_id: str = ""


def read_payload(payload: dict[str, Any]) -> Told:
    """An error's payload, or a problem, as what was told."""
    return Told(
        code=payload["code"],
        retryable=payload["retryable"],
        retry_after_ms=payload["retry_after_ms"],
        trace_id=payload["trace_id"],
    )


def run(product: Product, script: str) -> Any:
    """What the script, run in a process of its own, gives to ``tell``."""
    begin = f"PASSWORD, GUARDED = {PASSWORD!r}, {GUARDED!r}{_BEGIN}"
    done = product.manage("shell", "--no-imports", "-c", f"{begin}\ntell = None\n{script}\nprint(json.dumps(tell))")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def make_keys(product: Product) -> dict[str, str]:
    """Keys and tokens of accounts that only these tests have, by what they are for."""
    made: dict[str, str] = run(product, _MAKE_KEYS)
    return made


class SealedClient:
    """A JSON client of a connection where everything is sealed."""

    def __init__(self, client: Client, level: str) -> None:
        self.client = client
        self.sealing = ClientSealing(client.encoding, level=level)
        self.session_id = ""

    async def come_in(self, key: str, **request_fields: Any) -> dict[str, Any]:
        """Shake hands (with these fields too) and authenticate; the answers of both, in one."""
        level, offer = self.sealing.level, self.sealing.make_offer()
        payload = {"protocol_versions": ["1.1"], "client": {"name": "codes"}, "security_level": level, **request_fields}
        request = make_message("handshake", {**payload, "key_agreement": offer})
        frame = self.sealing.encode(request)
        await self.client.send_text(frame)
        answer = json.loads(await self.client.socket.recv())["payload"]
        self.sealing.agree(request=frame, answer=answer["key_agreement"], connection_id=answer["connection_id"])
        authenticated = await self.exchange(make_message("authentication", {"method": "api_key", "key": key}))
        assert authenticated["type"] == "authentication", authenticated
        self.session_id = authenticated["payload"]["session_id"]
        return {**answer, **authenticated["payload"]}

    def sign(self, message: dict[str, Any], key: SigningKey) -> dict[str, Any]:
        """The message with its signature."""
        signature = self.sealing.sign(message, key=key, session_id=self.session_id)
        return {**message, "security": {"signature": signature}}

    async def send(self, envelope: dict[str, Any]) -> dict[str, Any]:
        """Send an envelope, sealed or not; the next message."""
        await self.client.send_text(self.sealing.encode(envelope))
        return await self.receive()

    async def receive(self) -> dict[str, Any]:
        """The next message, opened."""
        async with asyncio.timeout(WAIT_SECONDS):
            return self.sealing.open(str(await self.client.socket.recv()).encode())

    async def exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        """Seal a message and send it; the next one that comes."""
        return await self.send(self.sealing.seal(message))


def make_message(message_type: str, payload: Any) -> dict[str, Any]:
    return {"id": f"m-{uuid.uuid4().hex}", "type": message_type, "payload": payload, "timestamp": get_timestamp()}


@dataclass(frozen=True, kw_only=True)
class Ground:
    """The product as one case sees it."""

    product: Product
    address: str
    """Of this machine's, that only this case comes from: what is counted by address is counted for it alone."""
    keys: dict[str, str]
    """Of ``make_keys``."""

    @property
    def signing_key(self) -> SigningKey:
        """The registered one of the account that may have level `critical`."""
        return SigningKey(Ed25519PrivateKey.from_private_bytes(from_base64url(self.keys["signing"])))

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Client]:
        """A socket that has shaken hands."""
        async with open_client(self.product.websocket_url, address=self.address) as client:
            await client.shake_hands()
            yield client

    @asynccontextmanager
    async def open_session(self, key: str) -> AsyncIterator[Client]:
        """A socket that has authenticated."""
        async with self.connect() as client:
            answer = await client.authenticate(key)
            assert answer.type == "authentication", answer
            yield client

    @asynccontextmanager
    async def open_http(self) -> AsyncIterator[httpx2.AsyncClient]:
        transport = httpx2.AsyncHTTPTransport(local_address=self.address)
        async with httpx2.AsyncClient(
            base_url=self.product.url, transport=transport, timeout=20, follow_redirects=False
        ) as client:
            yield client

    @asynccontextmanager
    async def open_sealed(self, level: str) -> AsyncIterator[SealedClient]:
        """A socket at this level, by the account that may have it."""
        async with open_client(self.product.websocket_url, address=self.address) as client:
            sealed = SealedClient(client, level)
            await sealed.come_in(self.keys["critical"])
            yield sealed

    async def request(self, method: str, path: str, *, key: str | None = None, body: Any = None) -> Told:
        """What REST tells; its headers agree with the problem."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        async with self.open_http() as client:
            answer = await client.request(method, f"api/v1/{path}", json=body, headers=headers)
        if answer.status_code < 400:
            return Told(code="", status=answer.status_code)
        payload = answer.json()
        if "payload" in payload:
            payload = payload["payload"]
        told = read_payload(payload)
        if told.retry_after_ms is not None and "retry-after" in answer.headers:
            assert int(answer.headers["retry-after"]) * 1000 >= told.retry_after_ms
        return Told(
            code=told.code,
            status=answer.status_code,
            retryable=told.retryable,
            retry_after_ms=told.retry_after_ms,
            headers=dict(answer.headers),
            trace_id=told.trace_id,
        )

    async def post_message(self, command: str, arguments: Any = None, *, key: str | None = None, **fields: Any) -> Told:
        """What ``POST messages/`` tells of a command; ``fields`` are the envelope's."""
        message = {**make_message("command", {"command": command, "arguments": arguments or {}}), **fields}
        return await self.request("POST", "messages/", key=key, body=message)

    async def sign_in_to_console(self, username: str, password: str) -> tuple[httpx2.Response, dict[str, str]]:
        """What the console's form answers, and the cookies."""
        async with self.open_http() as client:
            await client.get("admin/login/")
            token = client.cookies["mcp_csrf"]
            form = {"username": username, "password": password, "csrfmiddlewaretoken": token}
            answer = await client.post(
                "admin/login/", data=form, headers={"Referer": f"{self.product.url}admin/login/"}
            )
            return answer, dict(client.cookies)


def find_notice(page: str) -> str:
    """A page's text without its markup, for what a form says to people."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
