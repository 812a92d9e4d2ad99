"""Tokens by REST, on the running product: issued, used at both doors, refreshed once, revoked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.client import open_client
from tests.e2e.conftest import Keys
from tests.e2e.test_rest import execute, get_code, open_api, read_events
from tests.services import Product

WITHIN_SECONDS = 1.5
"""A second, and what this machine's other work may take."""


@pytest.fixture
def anyone(product: Product) -> Iterator[httpx2.Client]:
    with open_api(product, None) as client:
        yield client


@pytest.fixture
def pair(anyone: httpx2.Client, keys: Keys) -> dict[str, str]:
    """Tokens of an agent's."""
    issued: dict[str, str] = anyone.post("auth/token/", json={"key": keys.agent}).json()
    return issued


def test_a_key_gives_a_pair_that_opens_both_doors(product: Product, pair: dict[str, str]) -> None:
    with open_api(product, pair["access"]) as api:
        answer = execute(api, "text.count_words", {"text": "a b"}, query="?wait=15")
        assert answer.json()["output"]["words"] == 2

    async def connect() -> str:
        async with open_client(product.websocket_url) as client:
            await client.shake_hands()
            answer = await client.wait_for_reply(
                await client.send("authentication", {"method": "jwt", "token": pair["access"]})
            )
            return answer.type

    assert asyncio.run(connect()) == "authentication"


def test_an_operator_gets_a_pair_by_password(product: Product, anyone: httpx2.Client) -> None:
    body = {"username": "operator", "password": product.operator_password}
    issued = anyone.post("auth/token/", json=body)
    assert issued.status_code == 200
    assert issued.headers["cache-control"] == "no-store"
    with open_api(product, issued.json()["access"]) as api:
        assert api.get("executions/?limit=1").status_code == 200
    wrong = anyone.post("auth/token/", json={**body, "password": "wrong"})
    assert (wrong.status_code, get_code(wrong)) == (401, "security.authentication_failed")


def test_a_refresh_token_counts_once_also_for_eight_at_once(anyone: httpx2.Client, pair: dict[str, str]) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: anyone.post("auth/refresh/", json={"refresh": pair["refresh"]}), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 7
    assert {get_code(answer) for answer in answers if answer.status_code == 401} == {"security.token_revoked"}


def test_neither_token_does_the_others_work(product: Product, anyone: httpx2.Client, pair: dict[str, str]) -> None:
    assert get_code(anyone.post("auth/refresh/", json={"refresh": pair["access"]})) == "security.authentication_failed"
    with open_api(product, pair["refresh"]) as api:
        assert get_code(api.get("tools/")) == "security.authentication_failed"
    assert get_code(anyone.post("auth/refresh/", json={"refresh": "no.such.token"})) == "security.authentication_failed"


def test_what_is_revoked_is_refused_at_once_and_its_stream_ends(
    product: Product, anyone: httpx2.Client, keys: Keys, pair: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    go = tmp_path_factory.mktemp("run") / "go"
    with open_api(product, pair["access"]) as api:
        run = execute(api, "sample_tools.wait_for", {"path": str(go)}).headers["location"]
        with api.stream("GET", f"{run}events/") as answer:
            events = read_events(answer)
            next(events)
            assert anyone.post("auth/revoke/", json={"token": pair["refresh"]}).status_code == 204
            revoked_at = time.monotonic()
            assert get_code(api.get("tools/")) == "security.authentication_failed"
            for _ in events:
                pass
        assert time.monotonic() - revoked_at < WITHIN_SECONDS
    with open_api(product, keys.agent) as api:
        assert api.post(f"{run}cancel/", json={"mode": "kill"}).json() == {"cancelled": True}
    # Also what is none: who asks learns nothing.
    assert anyone.post("auth/revoke/", json={"token": pair["refresh"]}).status_code == 204
    assert anyone.post("auth/revoke/", json={"token": "none"}).status_code == 204


@pytest.mark.parametrize(
    "body",
    [{}, {"key": "mcp_x", "username": "operator", "password": "x"}, {"username": "operator"}, {"password": "x"}],
)
def test_one_kind_of_credentials_is_asked_for(anyone: httpx2.Client, body: dict[str, str]) -> None:
    answer = anyone.post("auth/token/", json=body)
    assert (answer.status_code, get_code(answer)) == (400, "protocol.invalid_arguments")
