"""What provokes the security codes: accounts, and three doors, each case coming from an address of its own."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.client import Client, get_timestamp, open_client
from tests.services import Product

PASSWORD = "a long password of the tests"  # of accounts that only these tests have
GUARDED = "files.list"
"""A tool that demands the level `high`."""

_BEGIN = """
import json
from datetime import timedelta
from django.utils import timezone
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


@dataclass(frozen=True, kw_only=True)
class Ground:
    """The product as one case sees it."""

    product: Product
    address: str
    """Of this machine's, that only this case comes from: what is counted by address is counted for it alone."""
    keys: dict[str, str]
    """Of ``make_keys``."""

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
        message = {
            "id": "m-1",
            "type": "command",
            "payload": {"command": command, "arguments": arguments or {}},
            "timestamp": get_timestamp(),
            **fields,
        }
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
