"""Tokens, passwords and revocation over a real socket, with the acts done by another process than the socket's."""

from __future__ import annotations

import asyncio
import json
import time
from http.cookiejar import CookieJar
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, Request, build_opener

import pytest

from security.domain.lockout import PAIR_ALLOWANCE
from tests.client import Client, Encoding, open_client
from tests.services import Product

REACHES_SECONDS = 3.0
"""A second is promised; a busy machine may take its time to tell of it, but far less than the next sign of life."""
REVOKED = 4403

_BEGIN = """
import json, time
from protocol.models import Session
from protocol.ports import get_authenticator
from protocol.domain.messages import ApiKeyCredentials, PasswordCredentials
from security import services
from security.models import Account, ApiKey
from security.selectors import get_account_principal

def show(credentials):
    return get_authenticator().authenticate(credentials=credentials, remote_address=None)

def issue(principal):
    return services.issue_tokens(principal=principal, remote_address=None, trace_id="")

def tell(**values):
    print(json.dumps({"at": time.time(), **values}))
"""


def run(product: Product, script: str) -> dict[str, Any]:
    """What the script told, run in a process of its own."""
    done = product.manage("shell", "--no-imports", "-c", _BEGIN + script)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def make_account(product: Product, name: str) -> dict[str, Any]:
    """A new agent, its key, and a pair of tokens obtained with it."""
    return run(
        product,
        f"""
account = services.create_account(username={name!r}, kind=Account.Kind.SERVICE, roles=["agent"])
key = services.issue_api_key(account=account, name="test", scopes=["tools.*"]).secret
pair = issue(show(ApiKeyCredentials(key)))
tell(key=key, access=pair.access, refresh=pair.refresh)
""",
    )


async def come_in(client: Client, **credentials: str) -> None:
    await client.shake_hands()
    answer = await client.show(**credentials)
    assert answer.type == "authentication", answer


async def wait_closed(client: Client) -> tuple[int | None, float]:
    """The close code, and when it came."""
    code = await client.wait_closed(seconds=60)
    return code, time.time()


def sign_in_to_console(product: Product, username: str, password: str) -> str:
    """The page that answers the console's sign-in form."""
    jar = CookieJar()
    browser = build_opener(HTTPCookieProcessor(jar))
    page = f"{product.url}admin/login/"
    browser.open(page, timeout=10).close()
    token = next(cookie.value for cookie in jar if cookie.name == "mcp_csrf")
    form = urlencode({"username": username, "password": password, "csrfmiddlewaretoken": token})
    with browser.open(Request(page, data=form.encode(), headers={"Referer": page}), timeout=10) as answer:  # noqa: S310  # http
        body: bytes = answer.read()
    return body.decode()


@pytest.mark.parametrize("encoding", Encoding)
async def test_a_token_is_taken_renewed_and_refused(product: Product, encoding: Encoding) -> None:
    made = make_account(product, f"token-{encoding.name.lower()}")
    async with open_client(product.websocket_url, encoding=encoding) as client:
        handshake = await client.shake_hands()
        assert handshake.payload["authentication"] == {"methods": ["jwt", "api_key", "password"]}
        assert (await client.show(method="jwt", token=made["refresh"])).code == "security.authentication_failed"
        assert (await client.show(method="jwt", token=made["access"] + "A")).code == "security.authentication_failed"
        answer = await client.show(method="jwt", token=made["access"])
        assert answer.payload["principal"]["name"] == f"token-{encoding.name.lower()}"
        assert answer.payload["expires_at"] is not None
        await client.check_usable()
        assert (await client.execute("text.count_words", {"text": "a b"})).result["output"]["words"] == 2
        # Its scopes are the key's.
        listed = await client.call("executions.get", {"execution": "01a1fa78-65e4-7164-b029-d1f8890d3dfa"})
        assert listed.code == "security.access_denied"
        next_pair = run(
            product,
            f"pair = services.refresh_tokens(refresh_token={made['refresh']!r}, remote_address=None, trace_id='')\n"
            "tell(access=pair.access)",
        )
        renewed = await client.show(method="jwt", token=next_pair["access"])
        assert renewed.payload["session_id"] == answer.payload["session_id"]
        await client.check_usable()


@pytest.mark.parametrize("what", ["key", "token", "account", "session"])
async def test_a_revocation_closes_the_socket_of_another_process(product: Product, what: str) -> None:
    name = f"revoked-{what}"
    made = make_account(product, name)
    act = {
        "key": "services.revoke_api_key(api_key=account.api_keys.get())",
        "token": f"services.revoke_token(token={made['refresh']!r}, trace_id='')",
        "account": "account.is_active = False; services.save_account(account=account)",
        "session": "services.revoke_session(session_id=Session.objects.get(account=account, ended_at=None).id, "
        "principal=get_account_principal(account=Account.objects.get(username='operator')), trace_id='')",
    }[what]
    async with open_client(product.websocket_url) as client, open_client(product.websocket_url) as other:
        await come_in(client, method="jwt", token=made["access"])
        await come_in(other, method="api_key", key=product.agent_api_key)
        closing = asyncio.create_task(wait_closed(client))
        script = f"account = Account.objects.get(username={name!r})\n{act}\ntell()"
        revoked = await asyncio.to_thread(run, product, script)
        code, closed_at = await closing
        assert code == REVOKED
        assert closed_at - revoked["at"] < REACHES_SECONDS
        await other.check_usable()


async def test_wrong_passwords_lock_a_person_out_on_the_socket_and_in_the_console(product: Product) -> None:
    password = run(
        product,
        """
password = services.generate_password()
services.create_account(username="guessed", password=password, roles=["viewer"], is_staff=True)
tell(password=password)
""",
    )["password"]
    async with open_client(product.websocket_url) as client:
        await client.shake_hands()
        for _ in range(PAIR_ALLOWANCE.attempts):
            refused = await client.show(method="password", username="guessed", password="wrong")
            assert refused.code == "security.authentication_failed"
            assert refused.details == {}
        locked = await client.show(method="password", username="guessed", password=password)
        assert (locked.code, locked.payload["retryable"]) == ("security.locked_out", True)
        assert locked.payload["retry_after_ms"] > 0
        assert "Try again in 3 min." in await asyncio.to_thread(sign_in_to_console, product, "guessed", password)
        # Its key would be taken all the same, and other persons are.
        operator = await client.show(method="password", username="operator", password=product.operator_password)
        assert operator.payload["principal"]["name"] == "operator"
        await client.check_usable()
